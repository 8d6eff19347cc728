using UnityEditor;
using UnityEngine;

namespace Worldwire.Editor
{
    /// <summary>
    /// Window > Worldwire: start a server on this machine, ask one how it is doing, copy diagnostics.
    /// </summary>
    public sealed class WorldwireWindow : EditorWindow
    {
        private const string CommandKey = "Worldwire.Command";
        private const string PresetKey = "Worldwire.Preset";
        private const string AddressKey = "Worldwire.Address";
        private const string ServerKeyKey = "Worldwire.ServerKey";

        private readonly ServerProbe _probe = new ServerProbe();
        private string _command;
        private string _preset;
        private string _address;
        private string _serverKey;
        private string _problem;

        [MenuItem("Window/Worldwire")]
        public static void Open() => GetWindow<WorldwireWindow>("Worldwire").minSize = new Vector2(360, 240);

        private void OnEnable()
        {
            _command = EditorPrefs.GetString(CommandKey, "worldwire");
            _preset = EditorPrefs.GetString(PresetKey, "tiny");
            _address = EditorPrefs.GetString(AddressKey, Protocol.DefaultAddress);
            _serverKey = EditorPrefs.GetString(ServerKeyKey, "");
            EditorApplication.update += Tick;
        }

        private void OnDisable()
        {
            EditorApplication.update -= Tick;
            _probe.Stop();
            EditorPrefs.SetString(CommandKey, _command);
            EditorPrefs.SetString(PresetKey, _preset);
            EditorPrefs.SetString(AddressKey, _address);
            EditorPrefs.SetString(ServerKeyKey, _serverKey);
        }

        private void Tick()
        {
            if (_probe.Update()) Repaint();
        }

        private void OnGUI()
        {
            DrawServer();
            EditorGUILayout.Space();
            DrawProbe();
        }

        private void DrawServer()
        {
            bool running = LocalServer.IsRunning;
            EditorGUILayout.LabelField("Local server", running ? "running" : "not started from here");
            _command = EditorGUILayout.TextField("Command", _command);
            _preset = EditorGUILayout.TextField("Preset", _preset);
            _address = EditorGUILayout.TextField("Address", _address);
            EditorGUILayout.BeginHorizontal();
            if (GUILayout.Button(running ? "Restart local server" : "Start local server"))
            {
                _problem = LocalServer.Start(_command, _preset, _address);
            }
            EditorGUI.BeginDisabledGroup(!running);
            if (GUILayout.Button("Stop")) LocalServer.Stop();
            EditorGUI.EndDisabledGroup();
            EditorGUILayout.EndHorizontal();
            if (_problem != null) EditorGUILayout.HelpBox(_problem, MessageType.Error);
        }

        private void DrawProbe()
        {
            _serverKey = EditorGUILayout.TextField("Server key", _serverKey);
            EditorGUILayout.BeginHorizontal();
            EditorGUI.BeginDisabledGroup(_probe.IsBusy);
            if (GUILayout.Button("Ping")) _probe.Start(_address, _serverKey);
            EditorGUI.EndDisabledGroup();
            if (GUILayout.Button("Copy diagnostics")) GUIUtility.systemCopyBuffer = _probe.Diagnostics(_address);
            EditorGUILayout.EndHorizontal();
            if (_probe.Result.Length > 0) EditorGUILayout.HelpBox(_probe.Result, MessageType.Info);
        }
    }
}
