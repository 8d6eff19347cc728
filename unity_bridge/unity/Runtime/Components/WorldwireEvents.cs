using System;
using UnityEngine;
using UnityEngine.Events;

namespace Worldwire
{
    /// <summary>What happens to a WorldwireCamera on the same object, for the Inspector to connect.</summary>
    [AddComponentMenu("Worldwire/Worldwire Events")]
    [DisallowMultipleComponent]
    public sealed class WorldwireEvents : MonoBehaviour
    {
        [Serializable]
        public sealed class TextEvent : UnityEvent<string>
        {
        }

        [Serializable]
        public sealed class TextureEvent : UnityEvent<Texture>
        {
        }

        [Tooltip("The world begins to play: at first, after a reconnect, never per frame.")]
        public UnityEvent OnReady = new UnityEvent();

        [Tooltip("A new frame is in the texture.")]
        public TextureEvent OnFrame = new TextureEvent();

        [Tooltip("A problem, once for each: what is wrong and what to do.")]
        public TextEvent OnError = new TextEvent();
    }
}
