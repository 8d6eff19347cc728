using System;
using System.Collections.Generic;
using System.Threading;

namespace Worldwire
{
    /// <summary>Where and how to connect.</summary>
    public sealed class ClientOptions
    {
        public string Address = Protocol.DefaultAddress;

        /// <summary>The server's public key (Z85); empty: no encryption.</summary>
        public string ServerKey = "";

        /// <summary>
        /// The client's own key pair (Z85), for servers that list their clients; empty: a fresh one.
        /// </summary>
        public string ClientPublicKey = "";

        public string ClientSecretKey = "";

        /// <summary>Name and version, for the server's log.</summary>
        public string Name = "worldwire-unity 1.0.0";

        /// <summary>The major version to claim; anything else than the protocol's own is for tests.</summary>
        public int Major = Protocol.Major;

        /// <summary>How long an answer to anything that generates may take.</summary>
        public double RequestSeconds = 300;
    }

    /// <summary>
    /// A connection that keeps itself up: it waits for a server that is not there or still loads, says in State and
    /// Problem what is wrong, tries again, and takes its sessions up again where the server still has them. One
    /// thread owns it and calls Update often; everything happens there.
    /// </summary>
    public sealed class WorldClient
    {
        public const double RetrySeconds = 2;

        /// <summary>After what time does not heal by itself: another version, another key.</summary>
        public const double SlowRetrySeconds = 10;

        public const int CloseMilliseconds = 1000;

        private const double HelloAgainSeconds = 0.25;
        private const double HelloPatienceSeconds = 10;

        private readonly ClientOptions _options;
        private readonly Dictionary<long, WorldRequest> _requests = new Dictionary<long, WorldRequest>();
        private readonly List<WorldSession> _sessions = new List<WorldSession>();
        private readonly List<long> _overdue = new List<long>();
        private readonly PingMeter _pings = new PingMeter();
        private Link _link;
        private long _ids;
        private long _helloId;
        private long _nextActionNs;
        private string _token;

        public WorldClient(ClientOptions options)
        {
            _options = options;
        }

        /// <summary>How the connection is doing: never Opening, Playing or Busy, which sessions are.</summary>
        public WorldState State { get; private set; } = WorldState.Closed;

        /// <summary>What went wrong last; null while all is well.</summary>
        public WorldwireException Problem { get; private set; }

        /// <summary>Of the server's loading, 0 to 1; null if unknown.</summary>
        public double? Progress { get; private set; }

        /// <summary>What the server is reading, for people; or null.</summary>
        public string Stage { get; private set; }

        /// <summary>What the server said of itself; null before the first welcome.</summary>
        public WelcomeMessage Welcome { get; private set; }

        /// <summary>How often a welcome came: it tells a new connection from an old one.</summary>
        public int Connections { get; private set; }

        /// <summary>
        /// The newest complaint of the server that belongs to no request and no session; or null.
        /// </summary>
        public WorldwireException Complaint { get; private set; }

        /// <summary>Seconds to the next attempt; 0 while none is due.</summary>
        public double RetryInSeconds =>
            _link == null && State != WorldState.Closed ? Math.Max(0, Clock.Seconds(_nextActionNs - Clock.NowNs)) : 0;

        /// <summary>The quickest of the last pings; NaN before the first answer.</summary>
        public double RoundTripMs => _pings.BestNs < 0 ? double.NaN : Clock.Milliseconds(_pings.BestNs);

        /// <summary>Sessions that are not over.</summary>
        public IList<WorldSession> Sessions => _sessions;

        /// <summary>Pulsed whenever something comes, for those who wait instead of polling.</summary>
        internal object Gate { get; } = new object();

        /// <summary>Begins to connect. Unusable options show as State Refused or WrongKey.</summary>
        public void Open()
        {
            if (State != WorldState.Closed) return;
            Attempt();
        }

        /// <summary>Looks at what came and does what is due; never waits.</summary>
        public void Update()
        {
            if (State == WorldState.Closed) return;
            if (_link == null)
            {
                if (Clock.NowNs >= _nextActionNs) Attempt();
                return;
            }
            Receive();
            if (_link != null && _link.Problem != null) Lose(_link.Problem, StateOf(_link));
            if (_link != null) Continue();
        }

        /// <summary>
        /// Waits until something is there to look at, or so long; for programs without a loop of their own.
        /// </summary>
        public void Wait(int milliseconds)
        {
            lock (Gate)
            {
                bool any = _link != null && _link.HasArrivals;
                for (int i = 0; i < _sessions.Count; i++) any |= _sessions[i].Frames.Count > 0;
                if (!any) Monitor.Wait(Gate, milliseconds);
            }
        }

        /// <summary>Opens a session; formats in the order of preference.</summary>
        public WorldRequest OpenSession(string plan, int jpegQuality, params string[] formats)
        {
            string named = string.IsNullOrEmpty(plan) ? null : plan;
            var message = new OpenMessage { Plan = named, JpegQuality = jpegQuality };
            message.Formats.Clear();
            message.Formats.AddRange(formats);
            return Request(message);
        }

        /// <summary>Asks how the server is doing; answered by a StatusReportMessage.</summary>
        public WorldRequest Status() => Request(new StatusMessage());

        /// <summary>Says goodbye, which ends the sessions, and frees the socket; takes a second at most.</summary>
        public void Close()
        {
            if (_link != null) _link.CloseForGood(CloseMilliseconds);
            _link = null;
            FailRequests(new WorldwireException(ErrorCode.ConnectionLost, "The client was closed"));
            DropSessions(null);
            _token = null;
            Problem = null;
            State = WorldState.Closed;
        }

        /// <summary>Takes and forgets the newest complaint.</summary>
        public WorldwireException TakeComplaint()
        {
            WorldwireException complaint = Complaint;
            Complaint = null;
            return complaint;
        }

        // ------------------------------------------------------------------ for sessions

        internal bool Send(Message message) => _link != null && _link.Send(message);

        internal WorldRequest Request(Message message, byte[] payload = null)
        {
            var request = new WorldRequest(message.Type, ++_ids) { SentNs = Clock.NowNs };
            SetRequest(message, request.Id);
            if (State == WorldState.Ready && _link.Send(message, payload)) _requests[request.Id] = request;
            else request.Fail(new WorldwireException(
                ErrorCode.ConnectionLost, "not connected", got: State.ToString(), remedy: "Wait for State Ready."));
            return request;
        }

        private static void SetRequest(Message message, long id)
        {
            var session = message as SessionRequest;
            var open = message as OpenMessage;
            var status = message as StatusMessage;
            if (session != null) session.Request = id;
            else if (open != null) open.Request = id;
            else if (status != null) status.Request = id;
        }

        // ------------------------------------------------------------------ the way up

        private void Attempt()
        {
            ITransport transport;
            try
            {
                transport = CreateTransport();
            }
            catch (WorldwireException problem)
            {
                State = problem.Code == ErrorCode.WrongKey ? WorldState.WrongKey : WorldState.Refused;
                Problem = problem;
                _nextActionNs = Clock.NowNs + Clock.FromSeconds(SlowRetrySeconds);
                return;
            }
            _link = new Link(transport, Gate, _pings);
            _helloId = 0;
            State = WorldState.Connecting;
            _link.Start();
        }

        private ITransport CreateTransport()
        {
            ServerAddress address = ServerAddress.Parse(_options.Address);
            if (string.IsNullOrEmpty(_options.ServerKey)) return new ZmtpTransport(address);
            return Encryption.Transport(address, _options);
        }

        /// <summary>Says hello when that is due, and gives up a server that does not answer it.</summary>
        private void Continue()
        {
            long now = Clock.NowNs;
            if (State == WorldState.Ready)
            {
                FailOverdue(now);
                return;
            }
            if (!_link.IsOpen) return;
            if (_helloId == 0)
            {
                if (now >= _nextActionNs || State == WorldState.Connecting) SayHello(now);
            }
            else if (now >= _nextActionNs)
            {
                Lose(TransportProblems.NoAnswer(_options.Address), WorldState.Stalled);
            }
        }

        private void SayHello(long now)
        {
            _helloId = ++_ids;
            _nextActionNs = now + Clock.FromSeconds(HelloPatienceSeconds);
            _link.Send(new HelloMessage
            {
                Request = _helloId, Major = _options.Major, Client = _options.Name, Resume = _token,
            });
        }

        private void OnWelcome(WelcomeMessage welcome)
        {
            if (!Protocol.CanTalkTo(welcome.Major))
            {
                Lose(
                    MessageCodec.VersionMismatch("this client", welcome.Major, welcome.Minor),
                    WorldState.WrongVersion);
                return;
            }
            Welcome = welcome;
            Connections++;
            State = WorldState.Ready;
            Problem = null;
            Progress = null;
            Stage = null;
            _token = welcome.Token.Length > 0 ? welcome.Token : null;
            _link.HeartbeatSeconds = welcome.Limits.HeartbeatSeconds;
            _link.LivenessSeconds = welcome.Limits.LivenessSeconds;
            TakeUpSessions(welcome);
        }

        private void TakeUpSessions(WelcomeMessage welcome)
        {
            for (int i = _sessions.Count - 1; i >= 0; i--)
            {
                WorldSession session = _sessions[i];
                ResumedSession resumed = welcome.Resumed.Find(item => item.Session == session.Id);
                if (resumed == null)
                {
                    session.Fail(new WorldwireException(ErrorCode.SessionLost, "The server lost the session"), true);
                    _sessions.RemoveAt(i);
                    continue;
                }
                session.Resume(resumed);
                _link.Attach(session.Id, session.Frames);
            }
        }

        private void OnLoading(StatusReportMessage report)
        {
            State = WorldState.Loading;
            Progress = report.Progress;
            Stage = report.Stage;
            Problem = null;
            _helloId = 0;
            _nextActionNs = Clock.NowNs + Clock.FromSeconds(HelloAgainSeconds);
        }

        // ------------------------------------------------------------------ what comes

        private void Receive()
        {
            Arrival arrival;
            while (_link != null && _link.TryReceive(out arrival)) Dispatch(arrival);
        }

        private void Dispatch(Arrival arrival)
        {
            var error = arrival.Message as ErrorMessage;
            var bye = arrival.Message as ByeMessage;
            var requested = arrival.Message as IRequested;
            bool ofHello = requested != null && requested.Request != 0 && requested.Request == _helloId;
            if (bye != null) OnBye(bye);
            else if (ofHello) OnHelloAnswer(arrival);
            else if (error != null) OnError(error);
            else if (requested != null) OnAnswer(requested.Request, arrival);
        }

        private void OnHelloAnswer(Arrival arrival)
        {
            var welcome = arrival.Message as WelcomeMessage;
            var report = arrival.Message as StatusReportMessage;
            var error = arrival.Message as ErrorMessage;
            if (welcome != null) OnWelcome(welcome);
            else if (report != null) OnLoading(report);
            else if (error != null)
            {
                bool version = error.Code == ErrorCode.VersionMismatch;
                Lose(error.Exception(), version ? WorldState.WrongVersion : WorldState.Refused);
            }
        }

        private void OnAnswer(long id, Arrival arrival)
        {
            WorldRequest request;
            if (!_requests.TryGetValue(id, out request)) return;
            _requests.Remove(id);
            var opened = arrival.Message as OpenedMessage;
            var done = arrival.Message as DoneMessage;
            if (opened != null) request.Session = Adopt(opened);
            WorldSession session = done == null ? null : Find(done.Session);
            if (session != null) session.Done(done);
            if (session != null && session.IsOver) Forget(session);
            request.Succeed(arrival.Message, arrival.Payload);
        }

        private WorldSession Adopt(OpenedMessage opened)
        {
            var session = new WorldSession(this, opened);
            _sessions.Add(session);
            _link.Attach(session.Id, session.Frames);
            return session;
        }

        private void OnError(ErrorMessage message)
        {
            WorldwireException error = message.Exception();
            WorldRequest request;
            bool asked = _requests.TryGetValue(message.Request, out request);
            if (asked)
            {
                _requests.Remove(message.Request);
                request.Fail(error);
            }
            WorldSession session = Find(message.Session);
            if (session != null && (message.Fatal || !asked)) session.Fail(error, message.Fatal);
            if (session != null && session.IsOver) Forget(session);
            if (message.Fatal && message.Session == 0) Lose(error, WorldState.Refused);
            else if (session == null && !asked) Complaint = error;
        }

        private void OnBye(ByeMessage bye)
        {
            if (!bye.Resume) _token = null;
            Lose(new WorldwireException(
                ErrorCode.ConnectionLost, "The server said goodbye: " + bye.Reason,
                remedy: TransportProblems.StartIt), WorldState.Lost);
        }

        // ------------------------------------------------------------------ the way down

        private static WorldState StateOf(Link link)
        {
            if (link.Problem.Code == ErrorCode.WrongKey) return WorldState.WrongKey;
            if (link.Problem.Code == ErrorCode.MissingExtra) return WorldState.Refused;
            if (link.WentSilent) return WorldState.Stalled;
            return link.IsOpen ? WorldState.Lost : WorldState.NothingListens;
        }

        /// <summary>Ends this connection; sessions wait for the next one, requests do not.</summary>
        private void Lose(WorldwireException problem, WorldState state)
        {
            _link.Drop(0);
            _link = null;
            State = state;
            Problem = problem;
            Progress = null;
            Stage = null;
            FailRequests(problem);
            foreach (WorldSession session in _sessions) session.Frames.Clear();
            bool slow = state == WorldState.WrongKey || state == WorldState.WrongVersion;
            _nextActionNs = Clock.NowNs + Clock.FromSeconds(slow ? SlowRetrySeconds : RetrySeconds);
        }

        private void FailRequests(WorldwireException problem)
        {
            foreach (WorldRequest request in _requests.Values) request.Fail(problem);
            _requests.Clear();
        }

        private void FailOverdue(long now)
        {
            foreach (KeyValuePair<long, WorldRequest> pair in _requests)
            {
                if (Clock.Seconds(now - pair.Value.SentNs) > _options.RequestSeconds) _overdue.Add(pair.Key);
            }
            foreach (long id in _overdue)
            {
                _requests[id].Fail(TransportProblems.NoAnswer(_options.Address));
                _requests.Remove(id);
            }
            _overdue.Clear();
        }

        private void DropSessions(WorldwireException problem)
        {
            foreach (WorldSession session in _sessions) session.Fail(problem, true);
            _sessions.Clear();
        }

        private WorldSession Find(long id)
        {
            foreach (WorldSession session in _sessions)
            {
                if (session.Id == id) return session;
            }
            return null;
        }

        private void Forget(WorldSession session)
        {
            _sessions.Remove(session);
            if (_link != null) _link.Detach(session.Id);
        }
    }
}
