using System;
using System.Collections.Generic;
using System.Globalization;
using System.Threading;

namespace Worldwire.Tests
{
    /// <summary>
    /// watch ADDR [major=N] [key=KEY] [client=FILE]: plays and prints a line whenever its state changes, and
    /// `first SESSION EPOCH INDEX` at the first frame of each start. Commands on standard input, a line each:
    /// `look` prints the newest frame, `sleep MS` stalls the program, `quit` closes and prints how long that took.
    /// </summary>
    internal static class WatchProgram
    {
        internal static int Run(string[] args)
        {
            var options = new ClientOptions { Address = args[1] };
            for (int i = 2; i < args.Length; i++) Set(options, args[i]);
            var live = new LiveWorld(new LiveOptions { Client = options, Start = new WorldStart { Seed = 5 } });
            var commands = new Queue<string>();
            new Thread(() => ReadCommands(commands)) { IsBackground = true }.Start();
            live.Open();
            Watch(live, commands);
            long start = Clock.NowNs;
            live.Close();
            Say("closed", Clock.Seconds(Clock.NowNs - start).ToString("0.00", CultureInfo.InvariantCulture));
            return 0;
        }

        private static void Watch(LiveWorld live, Queue<string> commands)
        {
            WorldState state = WorldState.Closed;
            int starts = 0;
            long index = -1, waiting = 0;
            while (true)
            {
                live.Update();
                if (live.State != state) Say((state = live.State).ToString(), live.Describe());
                live.Control(new Control { Keys = Keys.Forward });
                WorldFrame frame = live.TakeFrame();
                if (frame != null)
                {
                    index = frame.Info.Index;
                    waiting = live.Session.Frames.Count;
                    if (live.Starts != starts) Say("first", frame.Info.Session, frame.Info.Epoch, index);
                    starts = live.Starts;
                }
                string command = Next(commands);
                if (command == "quit") return;
                if (command == "look") Say("look", index, waiting, live.Session == null ? 0 : live.Session.Frames.Skipped);
                if (command != null && command.StartsWith("sleep ")) Thread.Sleep(int.Parse(command.Substring(6)));
                live.Client.Wait(5);
            }
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

        private static void ReadCommands(Queue<string> commands)
        {
            for (string line = Console.ReadLine(); line != null; line = Console.ReadLine())
            {
                lock (commands) commands.Enqueue(line);
            }
            lock (commands) commands.Enqueue("quit");
        }

        private static string Next(Queue<string> commands)
        {
            lock (commands) return commands.Count > 0 ? commands.Dequeue() : null;
        }

        private static void Say(params object[] words) => PlayProgram.Say(words);
    }
}
