using System;
using System.Diagnostics;

namespace Worldwire.Tests
{
    /// <summary>Programs that end when a connection shows a certain state; they print it and what a player would read.</summary>
    internal static class StateProgram
    {
        private const double PatienceSeconds = 30;

        /// <summary>state ADDR STATE [major=N] [key=KEY] [client=FILE]: until a live world shows that state.</summary>
        internal static int Run(string[] args)
        {
            var options = new ClientOptions { Address = args[1] };
            for (int i = 3; i < args.Length; i++) Set(options, args[i]);
            var live = new LiveWorld(new LiveOptions { Client = options });
            var wanted = (WorldState)Enum.Parse(typeof(WorldState), args[2]);
            live.Open();
            PlayProgram.Until(live, () => live.State == wanted, wanted.ToString(), PatienceSeconds);
            PlayProgram.Say(live.State, live.Describe());
            var watch = Stopwatch.StartNew();
            live.Close();
            PlayProgram.Check(watch.Elapsed.TotalSeconds < 2, "closing is quick");
            return 0;
        }

        private static void Set(ClientOptions options, string setting)
        {
            int equals = setting.IndexOf('=');
            string value = setting.Substring(equals + 1);
            switch (setting.Substring(0, equals))
            {
                case "major": options.Major = int.Parse(value); break;
                case "key": options.ServerKey = value; break;
                case "client": options.ClientPublicKey = options.ClientSecretKey = value; break;
                default: throw new ArgumentException(setting);
            }
        }
    }
}
