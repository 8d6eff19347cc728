using System.Globalization;
using System.Text;
using UnityEngine;

namespace Worldwire.Editor
{
    /// <summary>Asks a server how it is doing, without opening a session.</summary>
    internal sealed class ServerProbe
    {
        private const double PatienceSeconds = 5;

        private WorldClient _client;
        private WorldRequest _status;
        private long _startedNs;
        private string _address;

        internal string Result { get; private set; } = "";

        internal bool IsBusy => _client != null;

        internal void Start(string address, string serverKey)
        {
            Stop();
            _address = address;
            _startedNs = Clock.NowNs;
            _client = new WorldClient(new ClientOptions { Address = address, ServerKey = serverKey });
            _client.Open();
            Result = "Asking " + address;
        }

        /// <summary>To be called often; true when Result has changed.</summary>
        internal bool Update()
        {
            if (_client == null) return false;
            _client.Update();
            if (_client.State == WorldState.Ready && _status == null) _status = _client.Status();
            bool answered = _status != null && _status.IsDone;
            bool failed = _client.Problem != null;
            bool late = Clock.Seconds(Clock.NowNs - _startedNs) > PatienceSeconds;
            if (!answered && !failed && !late) return false;
            Result = failed ? _client.Problem.Message : answered ? Describe() : Unanswered();
            Stop();
            return true;
        }

        internal void Stop()
        {
            if (_client != null) _client.Close();
            _client = null;
            _status = null;
        }

        /// <summary>What a report of a problem should contain.</summary>
        internal string Diagnostics(string address)
        {
            var text = new StringBuilder();
            text.AppendLine("worldwire for Unity, protocol " + Protocol.Major + "." + Protocol.Minor);
            text.AppendLine("Unity " + Application.unityVersion + " on " + Application.platform);
            text.AppendLine("address " + address);
            text.Append(Result);
            return text.ToString();
        }

        private string Unanswered() => _client.State == WorldState.Loading
            ? "The server is loading its world"
            : "No answer from " + _address;

        private string Describe()
        {
            if (_status.Error != null) return _status.Error.Message;
            var report = (StatusReportMessage)_status.Answer;
            WelcomeMessage welcome = _client.Welcome;
            return string.Format(
                CultureInfo.InvariantCulture,
                "{0}: {1}, world {2} {3}x{4} at {5} frames/s, {6} of {7} sessions, up {8:0} s, round trip {9:0.0} ms",
                welcome.Server, report.State, welcome.World.Name, welcome.World.Width, welcome.World.Height,
                welcome.World.FramesPerSecond, report.Sessions, report.MaxSessions, report.UptimeSeconds,
                _client.RoundTripMs);
        }
    }
}
