using System;
using System.Text;

namespace Worldwire
{
    /// <summary>Which frames of a live world are shown.</summary>
    public enum Pacing
    {
        /// <summary>All, at the rate of the world.</summary>
        WorldRate,

        /// <summary>Always the newest, as soon as it is here.</summary>
        Newest,
    }

    /// <summary>What to play and how.</summary>
    public sealed class LiveOptions
    {
        public ClientOptions Client = new ClientOptions();
        public WorldStart Start;

        /// <summary>A clip plan by name; empty: the server's.</summary>
        public string Plan = "";

        /// <summary>Preferred first.</summary>
        public string[] Formats = { FrameFormat.Rgba, FrameFormat.Rgb };

        public int JpegQuality = Protocol.DefaultJpegQuality;

        /// <summary>Frames that may be under way; 0: a step and a few.</summary>
        public int Window;

        public Pacing Pacing = Pacing.WorldRate;
    }

    /// <summary>
    /// A world that is played: it connects, opens a session, resets it and keeps it live, and does so again when
    /// the connection was lost: with the old session if the server still has it, else anew with the same start.
    /// One thread owns it and calls Update often.
    /// </summary>
    public sealed class LiveWorld
    {
        private enum Phase
        {
            Waiting,
            Opening,
            Resetting,
            Starting,
            Playing,
        }

        private readonly LiveOptions _options;
        private readonly FramePacer _pacer = new FramePacer();
        private WorldStart _start;
        private Phase _phase;
        private WorldRequest _request;
        private Control _sent;
        private bool _sentAny;
        private int _connections;
        private long _nextTryNs;
        private WorldwireException _problem;
        private WorldState _refusal = WorldState.Refused;

        public LiveWorld(LiveOptions options)
        {
            _options = options;
            _start = options.Start;
            Client = new WorldClient(options.Client);
        }

        public WorldClient Client { get; }

        /// <summary>Null until one is open.</summary>
        public WorldSession Session { get; private set; }

        public WorldState State
        {
            get
            {
                if (Client.State != WorldState.Ready) return Client.State;
                if (_phase == Phase.Playing) return WorldState.Playing;
                return _problem != null ? _refusal : WorldState.Opening;
            }
        }

        /// <summary>What is wrong; null while all is well.</summary>
        public WorldwireException Problem => Client.Problem ?? _problem;

        /// <summary>
        /// How often a session began to play; a change means a new first frame or a resumed one.
        /// </summary>
        public int Starts { get; private set; }

        /// <summary>Begins; what is wrong then stands in Problem.</summary>
        public void Open() => Client.Open();

        public void Close()
        {
            Client.Close();
            Session = null;
            _phase = Phase.Waiting;
            _problem = null;
            _connections = 0;
        }

        /// <summary>Looks at what came and does what is due; never waits.</summary>
        public void Update()
        {
            Client.Update();
            if (Client.State != WorldState.Ready)
            {
                _phase = Phase.Waiting;
                _request = null;
                return;
            }
            if (Client.Connections != _connections) BeginOnNewConnection();
            if (Session != null && Session.IsOver) OnSessionOver();
            Proceed();
        }

        /// <summary>
        /// The frame to show now, null if that is still the last one. Valid until the next is taken.
        /// </summary>
        public WorldFrame TakeFrame()
        {
            if (Session == null) return null;
            if (_options.Pacing == Pacing.Newest) return Session.TakeNewest();
            int lead = Math.Max(WorldSession.LeadFrames, Session.Window - (int)Session.FramesPerStep);
            return Session.Take(_pacer.Due(Clock.NowNs, Session.Frames.Count, lead));
        }

        /// <summary>
        /// What the player does now. It is sent if it changed or turns; call it in every update. No allocation.
        /// </summary>
        public void Control(Control control)
        {
            if (_phase != Phase.Playing) return;
            bool turns = control.YawDeg != 0 || control.PitchDeg != 0;
            if (_sentAny && !turns && Same(control, _sent)) return;
            Session.SendInput(control);
            _sent = control;
            _sentAny = true;
        }

        /// <summary>Starts the world anew; it stays live.</summary>
        public WorldRequest Reset(WorldStart start)
        {
            _start = start;
            return Session?.Reset(start);
        }

        /// <summary>Tells the world something new; picture, place and memory go on.</summary>
        public WorldRequest Prompt(string prompt)
        {
            _start.Prompt = prompt;
            return Session?.Prompt(prompt);
        }

        /// <summary>One line for people: what is going on, or what is wrong and what to do.</summary>
        public string Describe()
        {
            WorldwireException problem = Problem;
            if (problem != null) return problem.Message.TrimEnd('.') + "." + Retry();
            if (State == WorldState.Loading) return "The server is loading its world" + Loading();
            return State == WorldState.Opening ? "Making the first picture" : State.ToString();
        }

        // ------------------------------------------------------------------ the way to playing

        private void BeginOnNewConnection()
        {
            _connections = Client.Connections;
            _problem = null;
            _nextTryNs = 0;
            if (Session != null && !Session.IsOver && Session.Epoch > 0) StartSession();
            else OpenSession();
        }

        private void OpenSession()
        {
            Session = null;
            _phase = Phase.Opening;
            _request = Client.OpenSession(_options.Plan, _options.JpegQuality, _options.Formats);
        }

        private void StartSession()
        {
            _phase = Phase.Starting;
            _request = Session.Start(_options.Window);
        }

        private void OnSessionOver()
        {
            Refuse(Session.TakeError());
            Session = null;
        }

        private void Proceed()
        {
            if (_phase == Phase.Waiting && Clock.NowNs >= _nextTryNs) OpenSession();
            if (_request == null || !_request.IsDone || _phase == Phase.Playing) return;
            WorldRequest request = _request;
            _request = null;
            if (request.Error != null) Refuse(request.Error);
            else if (_phase == Phase.Opening) ResetSession(request.Session);
            else if (_phase == Phase.Resetting) StartSession();
            else if (_phase == Phase.Starting) BeginToPlay();
        }

        private void ResetSession(WorldSession session)
        {
            Session = session;
            _phase = Phase.Resetting;
            _request = session.Reset(_start);
        }

        private void BeginToPlay()
        {
            _phase = Phase.Playing;
            _problem = null;
            _sentAny = false;
            double rate = Client.Welcome.World.FramesPerSecond;
            if (rate > 0) _pacer.Rate = Math.Min(rate, FramePacer.MaxRate);
            _pacer.Restart();
            Starts++;
        }

        private void Refuse(WorldwireException problem)
        {
            _phase = Phase.Waiting;
            _request = null;
            _problem = problem;
            _refusal = problem.Code == ErrorCode.Busy ? WorldState.Busy : WorldState.Refused;
            if (Session != null && !Session.IsOver) Session.Close();
            Session = null;
            bool busy = _refusal == WorldState.Busy;
            double seconds = busy ? WorldClient.RetrySeconds : WorldClient.SlowRetrySeconds;
            _nextTryNs = Clock.NowNs + Clock.FromSeconds(seconds);
        }

        private string Retry()
        {
            double seconds = Client.State == WorldState.Ready
                ? Clock.Seconds(_nextTryNs - Clock.NowNs)
                : Client.RetryInSeconds;
            return seconds > 0 ? " Retrying in " + Math.Ceiling(seconds) + " s." : "";
        }

        private string Loading()
        {
            var text = new StringBuilder();
            if (Client.Stage != null) text.Append(": ").Append(Client.Stage);
            if (Client.Progress.HasValue) text.Append(" (").Append((int)(100 * Client.Progress.Value)).Append(" %)");
            return text.ToString();
        }

        private static bool Same(Control a, Control b) =>
            a.Keys == b.Keys && a.HasPose == b.HasPose && (!a.HasPose || Same(a.Pose, b.Pose));

        private static bool Same(WorldPose a, WorldPose b) =>
            a.Position.X == b.Position.X && a.Position.Y == b.Position.Y && a.Position.Z == b.Position.Z
            && a.Rotation.X == b.Rotation.X && a.Rotation.Y == b.Rotation.Y && a.Rotation.Z == b.Rotation.Z
            && a.Rotation.W == b.Rotation.W;
    }
}
