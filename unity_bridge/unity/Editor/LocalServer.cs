using System;
using System.ComponentModel;
using System.Diagnostics;
using UnityEditor;

namespace Worldwire.Editor
{
    /// <summary>
    /// `worldwire serve` as a process of the editor. Its number is kept over domain reloads, and it ends with the
    /// editor.
    /// </summary>
    [InitializeOnLoad]
    internal static class LocalServer
    {
        private const string ProcessKey = "Worldwire.LocalServer";
        private const int NoProcess = 0;

        static LocalServer()
        {
            EditorApplication.quitting += Stop;
        }

        internal static bool IsRunning => Find() != null;

        /// <summary>Starts it; null, or why that failed.</summary>
        internal static string Start(string command, string preset, string address)
        {
            Stop();
            var start = new ProcessStartInfo
            {
                FileName = command,
                Arguments = "serve --preset \"" + preset + "\" --bind " + address,
                UseShellExecute = false,
                CreateNoWindow = true,
            };
            try
            {
                SessionState.SetInt(ProcessKey, Process.Start(start).Id);
                return null;
            }
            catch (Win32Exception error)
            {
                return "Cannot run \"" + command + "\": " + error.Message
                    + ". Install it with pip, or give its full path.";
            }
        }

        internal static void Stop()
        {
            using (Process process = Find())
            {
                SessionState.EraseInt(ProcessKey);
                if (process == null) return;
                try
                {
                    process.Kill();
                }
                catch (InvalidOperationException)
                {
                    // It ended by itself in the meantime.
                }
            }
        }

        private static Process Find()
        {
            int id = SessionState.GetInt(ProcessKey, NoProcess);
            if (id == NoProcess) return null;
            try
            {
                Process process = Process.GetProcessById(id);
                return process.HasExited ? null : process;
            }
            catch (ArgumentException)
            {
                SessionState.EraseInt(ProcessKey);
                return null;
            }
        }
    }
}
