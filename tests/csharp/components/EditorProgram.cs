using System;
using System.Threading;
using UnityEditor;
using Worldwire.Editor;

namespace Worldwire.Tests
{
    /// <summary>
    /// editor COMMAND ADDR: what the window does: start a local server, ask it, stop it with the editor.
    /// </summary>
    internal static class EditorProgram
    {
        private const double PatienceSeconds = 40;

        internal static int Run(string command, string address)
        {
            string problem = LocalServer.Start("no-such-command-here", "tiny", address);
            LifeProgram.Check(problem != null && problem.Contains("no-such-command-here"), "a missing command is named");
            LifeProgram.Check(LocalServer.Start(command, "test-pattern", address) == null, "it starts");
            try
            {
                Ask(address);
            }
            finally
            {
                EditorApplication.Quit();
            }
            Thread.Sleep(300);
            LifeProgram.Check(!LocalServer.IsRunning, "it ends with the editor");
            return 0;
        }

        private static void Ask(string address)
        {
            LifeProgram.Check(LocalServer.IsRunning, "it runs");
            var probe = new ServerProbe();
            for (long end = Clock.NowNs + Clock.FromSeconds(PatienceSeconds); !probe.Result.Contains("sessions");)
            {
                LifeProgram.Check(Clock.NowNs < end, "it answers: " + probe.Result);
                if (!probe.IsBusy) probe.Start(address, "");
                probe.Update();
                Thread.Sleep(20);
            }
            Console.WriteLine(probe.Diagnostics(address));
        }
    }
}
