// The little of UnityEngine that the components need: enough to compile them and to run their lives without Unity.
using System;
using System.Collections.Generic;

namespace UnityEngine
{
    [AttributeUsage(AttributeTargets.All)] public sealed class SerializeField : Attribute { }
    [AttributeUsage(AttributeTargets.All)] public sealed class DisallowMultipleComponent : Attribute { }
    [AttributeUsage(AttributeTargets.All)] public sealed class TextAreaAttribute : Attribute { }
    public sealed class HeaderAttribute : Attribute { public HeaderAttribute(string text) { } }
    public sealed class TooltipAttribute : Attribute { public TooltipAttribute(string text) { } }
    public sealed class MinAttribute : Attribute { public MinAttribute(float low) { } }
    public sealed class RangeAttribute : Attribute { public RangeAttribute(float low, float high) { } }
    public sealed class AddComponentMenu : Attribute { public AddComponentMenu(string path) { } }
    public sealed class RequireComponent : Attribute { public RequireComponent(Type type) { } }

    public class Object
    {
        public static readonly List<Object> Destroyed = new List<Object>();
        public string name = "";
        public HideFlags hideFlags;
        public static void Destroy(Object item) { Destroyed.Add(item); }
        public static void DestroyImmediate(Object item) { Destroyed.Add(item); }
    }

    public enum HideFlags { None, HideAndDontSave }

    public class Component : Object
    {
        public GameObject gameObject;
        public Transform transform { get { return gameObject.transform; } }
        public T GetComponent<T>() where T : Component { return gameObject.GetComponent<T>(); }
    }

    public class Behaviour : Component
    {
        public bool enabled = true;
        public bool isActiveAndEnabled { get { return enabled; } }
    }

    public class MonoBehaviour : Behaviour { public bool useGUILayout = true; }

    public sealed class GameObject : Object
    {
        private readonly List<Component> _components = new List<Component>();
        public readonly Transform transform = new Transform();

        public T AddComponent<T>() where T : Component, new()
        {
            var component = new T { gameObject = this };
            _components.Add(component);
            return component;
        }

        public T GetComponent<T>() where T : Component
        {
            foreach (Component component in _components)
            {
                if (component is T) return (T)component;
            }
            return null;
        }
    }

    public sealed class Transform : Component
    {
        public Vector3 position;
        public Quaternion rotation = Quaternion.identity;
        public Vector3 localPosition { get { return position; } set { position = value; } }
        public Quaternion localRotation { get { return rotation; } set { rotation = value; } }
    }

    public class Renderer : Component { public Material material = new Material(new Shader()); }

    public struct Vector2
    {
        public float x, y;
        public Vector2(float x, float y) { this.x = x; this.y = y; }
        public static Vector2 zero { get { return new Vector2(); } }
        public static Vector2 operator +(Vector2 a, Vector2 b) { return new Vector2(a.x + b.x, a.y + b.y); }
        public static Vector2 operator *(Vector2 a, float s) { return new Vector2(a.x * s, a.y * s); }
    }

    public struct Vector3
    {
        public float x, y, z;
        public Vector3(float x, float y, float z) { this.x = x; this.y = y; this.z = z; }
        public static Vector3 zero { get { return new Vector3(); } }
        public static Vector3 forward { get { return new Vector3(0, 0, 1); } }
        public static Vector3 operator +(Vector3 a, Vector3 b) { return new Vector3(a.x + b.x, a.y + b.y, a.z + b.z); }
        public static Vector3 operator -(Vector3 a, Vector3 b) { return new Vector3(a.x - b.x, a.y - b.y, a.z - b.z); }
        public static Vector3 operator *(Vector3 a, float s) { return new Vector3(a.x * s, a.y * s, a.z * s); }
        public static Vector3 operator /(Vector3 a, float s) { return a * (1 / s); }
    }

    public struct Quaternion
    {
        public float x, y, z, w;
        public Quaternion(float x, float y, float z, float w) { this.x = x; this.y = y; this.z = z; this.w = w; }
        public static Quaternion identity { get { return new Quaternion(0, 0, 0, 1); } }
        public static Quaternion Inverse(Quaternion q) { return new Quaternion(-q.x, -q.y, -q.z, q.w); }

        /// <summary>Degrees; around z, then x, then y, as in Unity.</summary>
        public static Quaternion Euler(float x, float y, float z)
        {
            return About(1, y) * About(0, x) * About(2, z);
        }

        public static Quaternion operator *(Quaternion a, Quaternion b)
        {
            return new Quaternion(
                a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
                a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x,
                a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w,
                a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z);
        }

        public static Vector3 operator *(Quaternion q, Vector3 v)
        {
            Quaternion turned = q * new Quaternion(v.x, v.y, v.z, 0) * Inverse(q);
            return new Vector3(turned.x, turned.y, turned.z);
        }

        private static Quaternion About(int axis, float degrees)
        {
            double half = degrees * Math.PI / 360;
            float s = (float)Math.Sin(half);
            return new Quaternion(axis == 0 ? s : 0, axis == 1 ? s : 0, axis == 2 ? s : 0, (float)Math.Cos(half));
        }
    }

    public struct Matrix4x4
    {
        private float[] _values;
        public static Matrix4x4 identity { get { return new Matrix4x4 { _values = new float[16] }; } }
        public float this[int row, int column]
        {
            get { return _values[4 * row + column]; }
            set { _values[4 * row + column] = value; }
        }
    }

    public struct Rect
    {
        public float x, y, width, height;
        public Rect(float x, float y, float width, float height)
        {
            this.x = x;
            this.y = y;
            this.width = width;
            this.height = height;
        }
    }

    public struct Color
    {
        public static Color white { get { return new Color(); } }
    }

    public static class Mathf
    {
        public const float Rad2Deg = 57.29578f;
        public static float Atan2(float y, float x) { return (float)Math.Atan2(y, x); }
    }

    public static class Time
    {
        public static float unscaledDeltaTime = 1f / 60;
        public static float deltaTime = 1f / 60;
    }

    public static class Debug
    {
        public static readonly List<string> Lines = new List<string>();
        public static void Log(object text) { Lines.Add(text.ToString()); }
        public static void LogWarning(object text, Object context) { Lines.Add(text.ToString()); }
        public static void LogError(object text) { Lines.Add(text.ToString()); }
    }

    public enum TextureFormat { RGB24, RGBA32, BGRA32 }
    public enum TextureWrapMode { Repeat, Clamp }
    public enum RenderTextureFormat { ARGB32 }

    public class Texture : Object
    {
        public int width, height;
        public TextureWrapMode wrapMode;
    }

    public sealed class Texture2D : Texture
    {
        public static int Made;
        public TextureFormat format;
        public byte[] Data = new byte[0];
        public int Uploads;

        public Texture2D(int width, int height, TextureFormat format, bool mipChain)
        {
            Made++;
            Reinitialize(width, height, format, mipChain);
        }

        public bool Reinitialize(int newWidth, int newHeight, TextureFormat newFormat, bool hasMipMap)
        {
            width = newWidth;
            height = newHeight;
            format = newFormat;
            Data = new byte[width * height * (format == TextureFormat.RGB24 ? 3 : 4)];
            return true;
        }

        public void LoadRawTextureData(byte[] data)
        {
            if (data.Length < Data.Length) throw new ArgumentException("not enough data provided");
            Buffer.BlockCopy(data, 0, Data, 0, Data.Length);
        }

        public void Apply(bool updateMipmaps, bool makeNoLongerReadable) { Uploads++; }
        public void ReadPixels(Rect source, int x, int y, bool recalculateMipMaps) { }
        public byte[] GetRawTextureData() { return Data; }
    }

    public static class ImageConversion
    {
        public static bool LoadImage(Texture2D texture, byte[] data, bool markNonReadable)
        {
            texture.Apply(false, false);
            return data[0] == 0xff && data[1] == 0xd8;
        }
    }

    public sealed class RenderTexture : Texture
    {
        public static RenderTexture active;
        public RenderTexture(int width, int height, int depth)
        {
            this.width = width;
            this.height = height;
        }

        public static RenderTexture GetTemporary(int width, int height, int depth, RenderTextureFormat format)
        {
            return new RenderTexture(width, height, depth);
        }

        public static void ReleaseTemporary(RenderTexture texture) { }
    }

    public sealed class Shader : Object { }

    public sealed class Material : Object
    {
        public readonly Dictionary<string, object> Set = new Dictionary<string, object>();
        public Material(Shader shader) { }
        public Texture mainTexture { set { Set["_MainTex"] = value; } }
        public void SetTexture(string property, Texture texture) { Set[property] = texture; }
        public void SetTextureScale(string property, Vector2 scale) { Set[property + "_Scale"] = scale; }
        public void SetTextureOffset(string property, Vector2 offset) { Set[property + "_Offset"] = offset; }
        public void SetMatrix(string property, Matrix4x4 matrix) { Set[property] = matrix; }
        public void SetFloat(string property, float value) { Set[property] = value; }
    }

    public static class Resources
    {
        public static T Load<T>(string path) where T : Object, new() { return new T(); }
    }

    public static class Graphics
    {
        public static int Blits;
        public static void Blit(Texture source, RenderTexture target) { Blits++; }
        public static void Blit(Texture source, RenderTexture target, Material material) { Blits++; }
        public static void Blit(Texture source, RenderTexture target, Vector2 scale, Vector2 offset) { Blits++; }
        public static void DrawTexture(Rect screen, Texture texture, Material material) { Blits++; }
    }

    public static class GUI
    {
        public static readonly List<string> Labels = new List<string>();
        public static void Box(Rect place, string text) { }
        public static void Label(Rect place, string text) { Labels.Add(text); }
        public static void DrawTextureWithTexCoords(Rect place, Texture texture, Rect source, bool alphaBlend) { }
    }

    public enum EventType { Repaint, Layout }

    public sealed class Event
    {
        public static Event current = new Event();
        public EventType type = EventType.Repaint;
    }

    public static class Screen
    {
        public static int width = 1280, height = 720;
    }

    public enum CursorLockMode { None, Locked }

    public static class Cursor
    {
        public static CursorLockMode lockState;
    }

    public enum KeyCode { W, A, S, D, UpArrow, DownArrow, LeftArrow, RightArrow, Space, Mouse0, Escape, P, R }

    public static class Input
    {
        public static readonly HashSet<KeyCode> Held = new HashSet<KeyCode>();
        public static readonly Dictionary<string, float> Axes = new Dictionary<string, float>();
        public static bool GetKey(KeyCode key) { return Held.Contains(key); }
        public static bool GetKeyDown(KeyCode key) { return false; }
        public static float GetAxisRaw(string name)
        {
            float value;
            return Axes.TryGetValue(name, out value) ? value : 0;
        }
    }

    public static class GUIUtility
    {
        public static string systemCopyBuffer = "";
    }

    public static class Application
    {
        public static string unityVersion = "stand-in";
        public static RuntimePlatform platform;
    }

    public enum RuntimePlatform { LinuxEditor }

    public struct GUIContent
    {
        public GUIContent(string text) { }
    }

    public static class GUILayout
    {
        public static bool Button(string text) { return false; }
        public static void Space(float pixels) { }
    }
}

namespace UnityEngine.Events
{
    public class UnityEvent
    {
        private event Action Listeners;
        public void AddListener(Action listener) { Listeners += listener; }
        public void Invoke() { if (Listeners != null) Listeners(); }
    }

    public class UnityEvent<T>
    {
        private event Action<T> Listeners;
        public void AddListener(Action<T> listener) { Listeners += listener; }
        public void Invoke(T value) { if (Listeners != null) Listeners(value); }
    }
}

namespace UnityEngine.XR
{
    public enum XRNode { CenterEye }

    public struct InputFeatureUsage<T> { }

    public static class CommonUsages
    {
        public static InputFeatureUsage<Vector3> centerEyePosition;
        public static InputFeatureUsage<Quaternion> centerEyeRotation;
    }

    public struct InputDevice
    {
        public bool isValid { get { return false; } }
        public bool TryGetFeatureValue(InputFeatureUsage<Vector3> usage, out Vector3 value)
        {
            value = Vector3.zero;
            return false;
        }

        public bool TryGetFeatureValue(InputFeatureUsage<Quaternion> usage, out Quaternion value)
        {
            value = Quaternion.identity;
            return false;
        }
    }

    public static class InputDevices
    {
        public static InputDevice GetDeviceAtXRNode(XRNode node) { return new InputDevice(); }
    }
}
