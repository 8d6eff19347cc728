using System;
using System.Collections.Generic;
using System.IO;
using System.Reflection;
using System.Threading;
using UnityEngine;

namespace Worldwire.Tests
{
    /// <summary>What a WorldwireCamera goes through in Play mode.</summary>
    internal static class LifeProgram
    {
        private const double PatienceSeconds = 30;

        /// <summary>Play, Stop, Play in one process: as with domain reload off.</summary>
        internal static int Lives(string address)
        {
            for (int life = 1; life <= 2; life++)
            {
                Texture2D.Made = 0;
                UnityEngine.Object.Destroyed.Clear();
                WorldwireCamera view = Make(address);
                var seen = new List<string>();
                WorldwireEvents events = view.GetComponent<WorldwireEvents>();
                events.OnReady.AddListener(() => seen.Add("ready"));
                events.OnFrame.AddListener(texture => seen.Add("frame"));
                Call(view, "OnEnable");
                view.GetComponent<WorldwireInput>().Press(Keys.Forward);
                PlayUntil(view, () => seen.Count >= 12);
                Check(seen[0] == "frame" || seen[0] == "ready", "events");
                Check(seen.Contains("ready"), "OnReady");
                Check(Texture2D.Made == 1, "one texture for all frames");
                Check(view.Texture.Uploads >= 10 && Array.Exists(view.Texture.Data, value => value != 0), "pictures");
                Check(Debug.Lines.Count == 0, "a quiet Console");
                Check(GUI.Labels.Exists(text => text.Contains("fps")), "figures on the screen");
                Call(view, "OnDisable");
                Check(view.State == WorldState.Closed && view.Texture == null, "all gone");
                Check(UnityEngine.Object.Destroyed.Count == 1, "the texture is destroyed");
                Check(OwnThreads() == 0, "no thread is left: " + OwnThreads());
            }
            Console.WriteLine("two lives");
            return 0;
        }

        /// <summary>Every output, JPEG, poses, a prompt and a reset on the way.</summary>
        internal static int Outputs(string address)
        {
            foreach (WorldwireOutput output in Enum.GetValues(typeof(WorldwireOutput)))
            {
                WorldwireCamera view = Make(address);
                view.Output = output;
                view.Target = new RenderTexture(64, 32, 0);
                view.TargetMaterial = new Material(new Shader());
                view.SendPose = true;
                view.Reproject = output != WorldwireOutput.Material;
                view.Format = output == WorldwireOutput.None ? WorldwireFormat.Jpeg : WorldwireFormat.Raw;
                view.SeedImage = output == WorldwireOutput.None ? new Texture() : null;
                view.MetresPerUnit = 0.5f;
                Graphics.Blits = 0;
                Call(view, "OnEnable");
                PlayUntil(view, () =>
                {
                    view.transform.position = view.transform.position + new Vector3(0, 0, 0.01f);
                    return view.Texture != null && view.Texture.Uploads > 12;
                });
                bool blits = output == WorldwireOutput.Screen || output == WorldwireOutput.RenderTexture;
                Check(Graphics.Blits > 0 == (blits || view.SeedImage != null), output + " draws");
                Check(view.TargetMaterial.Set.ContainsKey("_MainTex") == (output == WorldwireOutput.Material), output + "");
                Follow(view);
                Call(view, "OnDisable");
            }
            Console.WriteLine("all outputs");
            return 0;
        }

        /// <summary>The camera of the frames follows the transform; a reset begins anew.</summary>
        private static void Follow(WorldwireCamera view)
        {
            Vector3 position = Vector3.zero;
            Quaternion rotation;
            PlayUntil(view, () =>
            {
                view.FramePose(out position, out rotation);
                return position.z > 0.02f;
            });
            WorldRequest prompt = view.ChangePrompt("rain");
            PlayUntil(view, () => prompt.IsDone);
            long epoch = view.World.Session.Epoch;
            view.ResetWorld();
            PlayUntil(view, () => view.World.Session.Epoch == epoch + 1);
        }

        /// <summary>Without a server: one line in the Console, however long it lasts.</summary>
        internal static int Nobody(string address)
        {
            WorldwireCamera view = Make(address);
            var errors = new List<string>();
            view.GetComponent<WorldwireEvents>().OnError.AddListener(errors.Add);
            Call(view, "OnEnable");
            long end = Clock.NowNs + Clock.FromSeconds(3);
            PlayUntil(view, () => Clock.NowNs > end);
            Call(view, "OnDisable");
            Check(Debug.Lines.Count == 1, "one line, not " + Debug.Lines.Count);
            Check(errors.Count == 1, "one event");
            Console.WriteLine(Debug.Lines[0]);
            Console.WriteLine(GUI.Labels[GUI.Labels.Count - 1]);
            return 0;
        }

        internal static void Call(object target, string method) =>
            target.GetType().GetMethod(method, BindingFlags.Instance | BindingFlags.NonPublic).Invoke(target, null);

        internal static void Check(bool holds, string what)
        {
            if (!holds) throw new InvalidOperationException("not so: " + what + "; " + string.Join("; ", Debug.Lines));
        }

        private static WorldwireCamera Make(string address)
        {
            var item = new GameObject();
            item.AddComponent<WorldwireEvents>();
            item.AddComponent<WorldwireInput>().LockCursor = false;
            WorldwireCamera view = item.AddComponent<WorldwireCamera>();
            view.Address = address;
            view.Pacing = Pacing.Newest;
            return view;
        }

        private static void PlayUntil(WorldwireCamera view, Func<bool> condition)
        {
            long end = Clock.NowNs + Clock.FromSeconds(PatienceSeconds);
            while (!condition())
            {
                Call(view, "Update");
                Call(view, "OnGUI");
                Check(Clock.NowNs < end, "in time: " + view.State);
                Thread.Sleep(5);
            }
        }

        /// <summary>Threads of this process that the package named.</summary>
        private static int OwnThreads()
        {
            int count = 0;
            foreach (string folder in Directory.GetDirectories("/proc/self/task"))
            {
                if (File.ReadAllText(Path.Combine(folder, "comm")).StartsWith("worldwire")) count++;
            }
            return count;
        }
    }

    /// <summary>Keys and mouse by the old Input Manager, as the component is compiled here.</summary>
    internal static class InputProgram
    {
        internal static int Run()
        {
            WorldwireInput input = new GameObject().AddComponent<WorldwireInput>();
            input.LockCursor = false;
            Input.Held.Add(KeyCode.W);
            Input.Held.Add(KeyCode.LeftArrow);
            Input.Axes["Mouse X"] = 1;
            Input.Axes["Mouse Y"] = 2;
            Control control = input.Read();
            LifeProgram.Check(control.Keys == (Keys.Forward | Keys.Left), "held keys");
            LifeProgram.Check(control.YawDeg > 0 && control.PitchDeg > control.YawDeg, "right and up are positive");
            Input.Held.Clear();
            input.Press(Keys.Jump);
            LifeProgram.Check(input.Read().Keys == Keys.Jump && input.Read().Keys == Keys.None, "a press of one update");
            input.LockCursor = true;
            LifeProgram.Check(input.Read().YawDeg == 0, "a free cursor does not turn the view");
            Console.WriteLine("input");
            return 0;
        }
    }

    /// <summary>Homographies of rotations that come on standard input: 8 numbers and 4 tangents a line.</summary>
    internal static class WarpProgram
    {
        internal static int Run()
        {
            var matrix = new double[9];
            for (string line = Console.ReadLine(); line != null; line = Console.ReadLine())
            {
                double[] n = Array.ConvertAll(
                    line.Split(' '), text => double.Parse(text, System.Globalization.CultureInfo.InvariantCulture));
                Reprojection.Homography(
                    new Quat(n[0], n[1], n[2], n[3]), new Quat(n[4], n[5], n[6], n[7]), n[8], n[9], n[10], n[11], matrix);
                Console.WriteLine(string.Join(" ", Array.ConvertAll(
                    matrix, value => value.ToString("R", System.Globalization.CultureInfo.InvariantCulture))));
            }
            return 0;
        }
    }
}
