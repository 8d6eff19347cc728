using System;
using UnityEngine;

namespace Worldwire
{
    /// <summary>Where the frames go.</summary>
    public enum WorldwireOutput
    {
        /// <summary>Over the whole screen, behind all other GUI; any render pipeline.</summary>
        Screen,

        /// <summary>Into a RenderTexture.</summary>
        RenderTexture,

        /// <summary>To a texture property of a material.</summary>
        Material,

        /// <summary>Nowhere: scripts take Texture themselves.</summary>
        None,
    }

    /// <summary>How frames travel.</summary>
    public enum WorldwireFormat
    {
        /// <summary>4 bytes a pixel: quickest on one machine.</summary>
        Raw,

        /// <summary>A tenth of the bytes: for a network. Decoding allocates in Unity.</summary>
        Jpeg,
    }

    /// <summary>
    /// A camera into a generated world: sends keys, look or its pose to a worldwire server and shows the frames that
    /// come back. It connects when it is enabled, by itself again when the connection breaks, and leaves no thread
    /// or socket behind when it is disabled.
    /// </summary>
    [AddComponentMenu("Worldwire/Worldwire Camera")]
    [DisallowMultipleComponent]
    public sealed class WorldwireCamera : MonoBehaviour
    {
        private const string WarpProperty = "_WorldwireWarp";
        private const string TopDownProperty = "_WorldwireTopDown";
        private const string ShaderResource = "WorldwireReprojection";

        [Header("Server")]
        public string Address = Protocol.DefaultAddress;

        [Tooltip("The server's public key (40 characters) or its file; empty without encryption.")]
        public string ServerKey = "";

        [Tooltip("A key file of this client, if the server lists its clients.")]
        public string ClientKeyFile = "";

        public WorldwireFormat Format = WorldwireFormat.Raw;
        [Range(1, 100)] public int JpegQuality = Protocol.DefaultJpegQuality;

        [Header("World")]
        [TextArea] public string Prompt = "";
        public long Seed;

        [Tooltip("The name of a seed image of the server.")]
        public string SeedImageName = "";

        [Tooltip("A seed image of yours; it is stretched to the size of the world.")]
        public Texture SeedImage;

        [Tooltip("first or third person; empty: as the seed image wants.")]
        public string View = "";

        [Tooltip("A clip plan of the server, such as low-latency; empty: its own choice.")]
        public string Plan = "";

        [Header("Output")]
        public WorldwireOutput Output = WorldwireOutput.Screen;
        public RenderTexture Target;
        public Material TargetMaterial;
        public string TextureProperty = "_MainTex";
        public Pacing Pacing = Pacing.WorldRate;
        public bool ShowHud = true;

        [Header("Pose")]
        [Tooltip("Steer by the pose of Pose Source instead of keys and look.")]
        public bool SendPose;

        [Tooltip("The transform that moves, a head for instance; empty: this one.")]
        public Transform PoseSource;

        [Tooltip("Metres of the generated world for one unit of this scene.")]
        [Min(0.0001f)] public float MetresPerUnit = 1;

        [Tooltip("Turn the newest frame to the newest pose: hides the latency of turning the head.")]
        public bool Reproject;

        private readonly FrameTexture _texture = new FrameTexture();
        private readonly WorldwireHud _hud = new WorldwireHud();
        private readonly double[] _homography = new double[9];
        private WorldPose _framePose = new WorldPose(new Vec3(), Quat.Identity);
        private WorldwireEvents _events;
        private WorldwireInput _input;
        private Material _warp;
        private WorldOrigin _origin;
        private long _originSession, _originEpoch;
        private double _transportMs = double.NaN;
        private int _starts;
        private WorldwireException _reported;

        /// <summary>The connection and the session; null while disabled.</summary>
        public LiveWorld World { get; private set; }

        /// <summary>The newest frame; null before the first one. See IsTopDown.</summary>
        public Texture2D Texture => _texture.Texture;

        /// <summary>Whether row 0 of Texture is the top of the picture: then show it with v turned over.</summary>
        public bool IsTopDown => _texture.IsTopDown;

        public WorldState State => World == null ? WorldState.Closed : World.State;

        /// <summary>Frames a second that were shown lately.</summary>
        public double FramesPerSecond => _hud.FramesPerSecond;

        /// <summary>From the server's sending of the newest frame to its arrival; NaN if unknown.</summary>
        public double TransportMs => _transportMs;

        /// <summary>Starts anew with the present prompt, seed and image.</summary>
        public WorldRequest ResetWorld() => World?.Reset(Beginning());

        /// <summary>Tells the world something new while it goes on.</summary>
        public WorldRequest ChangePrompt(string prompt)
        {
            Prompt = prompt;
            return World?.Prompt(prompt);
        }

        /// <summary>The camera of the newest frame as a pose in this scene.</summary>
        public void FramePose(out Vector3 position, out Quaternion rotation) =>
            _origin.FromWire(_framePose, MetresPerUnit, out position, out rotation);

        // ------------------------------------------------------------------ Unity's calls

        private void OnEnable()
        {
            _events = GetComponent<WorldwireEvents>();
            _input = GetComponent<WorldwireInput>();
            _reported = null;
            _starts = 0;
            useGUILayout = false; // it would allocate in every frame
            World = new LiveWorld(Options());
            World.Open();
        }

        private void OnDisable()
        {
            World?.Close();
            World = null;
            _texture.Destroy();
            if (_warp != null) Destroy(_warp);
            _warp = null;
        }

        private void Update()
        {
            if (World == null) return;
            World.Update();
            Report();
            NoteStart();
            Steer();
            WorldFrame frame = World.TakeFrame();
            if (frame != null) Show(frame);
            else if (Reproject && _texture.Texture != null) Present();
            _hud.Refresh(World, _transportMs);
        }

        private void OnGUI()
        {
            if (Event.current.type != EventType.Repaint) return;
            if (Output == WorldwireOutput.Screen && _texture.Texture != null) DrawScreen();
            _hud.Draw(ShowHud);
        }

        // ------------------------------------------------------------------ parts of an update

        private LiveOptions Options() => new LiveOptions
        {
            Client = new ClientOptions
            {
                Address = Address, ServerKey = ServerKey, ClientPublicKey = ClientKeyFile,
                ClientSecretKey = ClientKeyFile,
            },
            Start = Beginning(),
            Plan = Plan,
            Formats = Format == WorldwireFormat.Jpeg
                ? new[] { FrameFormat.Jpeg, FrameFormat.Rgba }
                : new[] { FrameFormat.Rgba },
            JpegQuality = JpegQuality,
            Pacing = Pacing,
        };

        private WorldStart Beginning()
        {
            var start = new WorldStart { Prompt = Prompt, Seed = Seed, View = View, ImageName = SeedImageName };
            if (SeedImage == null) return start;
            start.ImageName = "";
            start.ImageFor = world => SeedImages.Rgb(SeedImage, world.Width, world.Height);
            return start;
        }

        /// <summary>One Console line and one event for each problem, not one per frame.</summary>
        private void Report()
        {
            WorldwireException problem =
                World.Problem ?? World.Session?.TakeError() ?? World.Client.TakeComplaint();
            if (problem == null)
            {
                if (World.State == WorldState.Playing && _reported != null && _reported.Code != ErrorCode.BadInput)
                {
                    _reported = null;
                }
                return;
            }
            if (_reported != null && _reported.Message == problem.Message) return;
            _reported = problem;
            string text = World.Problem != null ? World.Describe() : problem.Message;
            Debug.LogWarning("Worldwire: " + text, this);
            if (_events != null) _events.OnError.Invoke(text);
        }

        private void NoteStart()
        {
            if (World.Starts == _starts) return;
            _starts = World.Starts;
            if (_events != null) _events.OnReady.Invoke();
        }

        private void Steer()
        {
            WorldSession session = World.Session;
            if (session == null) return;
            Transform source = PoseSource != null ? PoseSource : transform;
            if (session.Id != _originSession || session.Epoch != _originEpoch)
            {
                _origin = WorldOrigin.At(source);
                _originSession = session.Id;
                _originEpoch = session.Epoch;
            }
            Control control = _input != null ? _input.Read() : new Control();
            control.HasPose = SendPose;
            if (SendPose) control.Pose = _origin.ToWire(source, MetresPerUnit);
            World.Control(control);
        }

        private void Show(WorldFrame frame)
        {
            _texture.Upload(frame);
            _framePose = frame.Info.Pose;
            _transportMs = frame.TransportMs;
            _hud.Count();
            Present();
            if (_events != null) _events.OnFrame.Invoke(_texture.Texture);
        }

        /// <summary>Puts the texture where it is wanted; the screen is drawn in OnGUI.</summary>
        private void Present()
        {
            if (Output == WorldwireOutput.RenderTexture && Target != null)
            {
                if (Reproject) Graphics.Blit(_texture.Texture, Target, Warp((float)Target.width / Target.height));
                else Graphics.Blit(_texture.Texture, Target, _texture.Scale, _texture.Offset);
            }
            else if (Output == WorldwireOutput.Material && TargetMaterial != null)
            {
                TargetMaterial.SetTexture(TextureProperty, _texture.Texture);
                TargetMaterial.SetTextureScale(TextureProperty, _texture.Scale);
                TargetMaterial.SetTextureOffset(TextureProperty, _texture.Offset);
            }
        }

        private void DrawScreen()
        {
            var screen = new Rect(0, 0, Screen.width, Screen.height);
            if (Reproject)
            {
                Graphics.DrawTexture(screen, _texture.Texture, Warp((float)Screen.width / Screen.height));
                return;
            }
            var source = new Rect(_texture.Offset.x, _texture.Offset.y, _texture.Scale.x, _texture.Scale.y);
            GUI.DrawTextureWithTexCoords(Fit(screen), _texture.Texture, source, false);
        }

        /// <summary>The largest part of the screen that has the shape of the picture.</summary>
        private Rect Fit(Rect screen)
        {
            float aspect = (float)_texture.Texture.width / _texture.Texture.height;
            float width = Math.Min(screen.width, screen.height * aspect);
            float height = width / aspect;
            return new Rect((screen.width - width) / 2, (screen.height - height) / 2, width, height);
        }

        /// <summary>The material that turns the frame to the newest pose.</summary>
        private Material Warp(float viewAspect)
        {
            if (_warp == null) _warp = new Material(Resources.Load<Shader>(ShaderResource));
            Transform source = PoseSource != null ? PoseSource : transform;
            Quat view = _origin.ToWire(source, MetresPerUnit).Rotation;
            double tanX = Math.Tan(World.Client.Welcome.World.HorizontalFovDeg * Math.PI / 360);
            double tanY = tanX * _texture.Texture.height / _texture.Texture.width;
            Reprojection.Homography(_framePose.Rotation, view, tanX, tanY, tanY * viewAspect, tanY, _homography);
            Matrix4x4 matrix = Matrix4x4.identity;
            for (int i = 0; i < 9; i++) matrix[i / 3, i % 3] = (float)_homography[i];
            _warp.SetMatrix(WarpProperty, matrix);
            _warp.SetFloat(TopDownProperty, _texture.IsTopDown ? 1 : 0);
            return _warp;
        }
    }
}
