using System;
using System.Text;
using UnityEngine;

namespace Worldwire
{
    /// <summary>
    /// Frames a second, latency, dropped frames, and what is wrong. The text is made twice a second, not per frame.
    /// </summary>
    internal sealed class WorldwireHud
    {
        private const double RefreshSeconds = 0.5;
        private const float Margin = 8;
        private const float LineHeight = 22;
        private const float PanelWidth = 520;
        private const float PanelHeight = 96;

        private readonly StringBuilder _builder = new StringBuilder();
        private string _text = "";
        private string _problem = "";
        private long _refreshedNs;
        private int _shown;

        /// <summary>Frames a second that were shown lately.</summary>
        public double FramesPerSecond { get; private set; }

        /// <summary>Another frame is on the screen.</summary>
        public void Count() => _shown++;

        /// <summary>Makes the text anew if it is time to.</summary>
        public void Refresh(LiveWorld world, double transportMs)
        {
            long now = Clock.NowNs;
            double seconds = Clock.Seconds(now - _refreshedNs);
            if (seconds < RefreshSeconds) return;
            FramesPerSecond = _refreshedNs == 0 ? 0 : _shown / seconds;
            _refreshedNs = now;
            _shown = 0;
            bool playing = world.State == WorldState.Playing;
            _problem = playing ? "" : world.Describe();
            _text = playing ? Figures(world, transportMs) : "";
        }

        public void Draw(bool figures)
        {
            if (_problem.Length > 0)
            {
                float width = Math.Min(PanelWidth, Screen.width - 2 * Margin);
                float left = (Screen.width - width) / 2, top = (Screen.height - PanelHeight) / 2;
                float textWidth = width - 2 * Margin, textHeight = PanelHeight - LineHeight;
                GUI.Box(new Rect(left, top, width, PanelHeight), "Worldwire");
                GUI.Label(new Rect(left + Margin, top + LineHeight, textWidth, textHeight), _problem);
            }
            else if (figures)
            {
                GUI.Label(new Rect(Margin, Margin, Screen.width - 2 * Margin, LineHeight), _text);
            }
        }

        private string Figures(LiveWorld world, double transportMs)
        {
            FrameQueue frames = world.Session.Frames;
            _builder.Length = 0;
            _builder.Append(FramesPerSecond.ToString("0.0")).Append(" fps");
            Append(" · transport ", transportMs);
            Append(" · input ", world.Session.InputMs);
            _builder.Append(" · dropped ").Append(frames.Dropped + frames.Skipped);
            return _builder.ToString();
        }

        private void Append(string name, double milliseconds)
        {
            if (double.IsNaN(milliseconds)) return;
            _builder.Append(name).Append(milliseconds.ToString("0")).Append(" ms");
        }
    }
}
