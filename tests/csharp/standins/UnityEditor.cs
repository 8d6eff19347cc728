// The little of UnityEditor that the window needs.
using System;
using UnityEngine;

namespace UnityEditor
{
    [AttributeUsage(AttributeTargets.Method)]
    public sealed class MenuItem : Attribute
    {
        public MenuItem(string path) { }
    }

    [AttributeUsage(AttributeTargets.Class)]
    public sealed class InitializeOnLoadAttribute : Attribute { }

    public enum MessageType { None, Info, Warning, Error }

    public class EditorWindow : UnityEngine.Object
    {
        public Vector2 minSize;
        public static T GetWindow<T>(string title) where T : EditorWindow, new() { return new T(); }
        public void Repaint() { }
    }

    public static class EditorApplication
    {
        public static event Action quitting;
        public static event Action update;
        public static void Quit() { if (quitting != null) quitting(); }
        public static void Tick() { if (update != null) update(); }
    }

    public static class EditorPrefs
    {
        private static readonly System.Collections.Generic.Dictionary<string, string> Values =
            new System.Collections.Generic.Dictionary<string, string>();

        public static string GetString(string key, string otherwise)
        {
            string value;
            return Values.TryGetValue(key, out value) ? value : otherwise;
        }

        public static void SetString(string key, string value) { Values[key] = value; }
    }

    public static class SessionState
    {
        private static readonly System.Collections.Generic.Dictionary<string, int> Values =
            new System.Collections.Generic.Dictionary<string, int>();

        public static int GetInt(string key, int otherwise)
        {
            int value;
            return Values.TryGetValue(key, out value) ? value : otherwise;
        }

        public static void SetInt(string key, int value) { Values[key] = value; }
        public static void EraseInt(string key) { Values.Remove(key); }
    }

    public static class EditorStyles
    {
        public static object boldLabel;
    }

    public static class EditorGUILayout
    {
        public static string TextField(string label, string text) { return text; }
        public static void LabelField(string label, string text) { }
        public static void HelpBox(string text, MessageType kind) { }
        public static void Space() { }
        public static void BeginHorizontal() { }
        public static void EndHorizontal() { }
    }

    public static class EditorGUI
    {
        public static void BeginDisabledGroup(bool disabled) { }
        public static void EndDisabledGroup() { }
    }
}
