using System;
using System.Collections.Generic;
using System.IO;

namespace Worldwire.Tests
{
    /// <summary>
    /// vectors FOLDER: every golden vector that its index lists, encoded and decoded; a line for each that fails.
    /// </summary>
    internal static class VectorsProgram
    {
        internal static int Run(string folder)
        {
            object index = Json.Parse(File.ReadAllText(Path.Combine(folder, "index.json")));
            int failed = 0, count = 0;
            foreach (object item in (List<object>)Json.Get(index, "vectors"))
            {
                count++;
                failed += Report(folder, item, CheckGolden);
            }
            foreach (object item in (List<object>)Json.Get(index, "refused"))
            {
                count++;
                failed += Report(Path.Combine(folder, "refused"), item, CheckRefused);
            }
            foreach (object item in (List<object>)Json.Get(index, "tolerated"))
            {
                count++;
                failed += Report(Path.Combine(folder, "tolerated"), item, CheckTolerated);
            }
            Console.WriteLine("vectors {0} failed {1}", count, failed);
            return failed == 0 ? 0 : 1;
        }

        private static int Report(string folder, object item, Func<string, object, string> check)
        {
            string name = (string)Json.Get(item, "name");
            string problem;
            try
            {
                problem = check(Path.Combine(folder, name), item);
            }
            catch (Exception error)
            {
                problem = error.ToString();
            }
            if (problem == null) return 0;
            Console.WriteLine("{0}: {1}", name, problem);
            return 1;
        }

        private static string CheckGolden(string path, object item)
        {
            byte[] golden = File.ReadAllBytes(path + ".msgpack");
            Message fromFields = Messages.Of(Json.Parse(File.ReadAllText(path + ".json")));
            string encoded = Hex(Encode(fromFields));
            if (encoded != Hex(golden)) return "encoded as " + encoded;
            string again = Hex(Encode(Decode(golden)));
            return again == Hex(golden) ? null : "decoded and encoded as " + again;
        }

        private static string CheckRefused(string path, object item)
        {
            string wanted = (string)Json.Get(item, "code");
            try
            {
                return "read as " + Decode(File.ReadAllBytes(path + ".msgpack")).Type;
            }
            catch (WorldwireException error)
            {
                return error.Code == wanted ? null : "refused as " + error.Code + ": " + error.Message;
            }
        }

        private static string CheckTolerated(string path, object item)
        {
            string vectors = Path.GetDirectoryName(Path.GetDirectoryName(path));
            string sameAs = Path.Combine(vectors, (string)Json.Get(item, "same_as"));
            string read = Hex(Encode(Decode(File.ReadAllBytes(path + ".msgpack"))));
            return read == Hex(File.ReadAllBytes(sameAs + ".msgpack")) ? null : "read as " + read;
        }

        private static Message Decode(byte[] data) =>
            new MessageCodec().Decode(data, 0, data.Length, new FrameMessage());

        private static byte[] Encode(Message message)
        {
            var writer = new MsgPackWriter();
            message.Encode(writer);
            return writer.ToArray();
        }

        private static string Hex(byte[] data) => BitConverter.ToString(data).Replace("-", "");
    }
}
