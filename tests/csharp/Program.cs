using System;

namespace Worldwire.Tests
{
    internal static class Program
    {
        private static int Main(string[] args)
        {
            switch (args.Length > 0 ? args[0] : "")
            {
                case "vectors": return VectorsProgram.Run(args[1]);
                case "play": return PlayProgram.Play(args[1], int.Parse(args[2]));
                default:
                    Console.Error.WriteLine("vectors FOLDER");
                    return 2;
            }
        }
    }
}
