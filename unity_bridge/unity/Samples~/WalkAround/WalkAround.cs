using UnityEngine;

namespace Worldwire.Samples
{
    /// <summary>
    /// Put this on an empty object of an empty scene and press Play: W A S D and the mouse walk through the world. R
    /// resets it with the next seed, P changes the weather.
    /// </summary>
    public sealed class WalkAround : MonoBehaviour
    {
        public string Address = Protocol.DefaultAddress;
        public string[] Prompts = { "it begins to snow", "the sun comes out" };

        private WorldwireCamera _camera;
        private int _prompt;

        private void Start()
        {
            gameObject.AddComponent<WorldwireInput>();
            _camera = gameObject.AddComponent<WorldwireCamera>();
            if (_camera.Address == Address) return;
            _camera.enabled = false;
            _camera.Address = Address;
            _camera.enabled = true;
        }

        /// <summary>For a key or a button of the scene: the same world from another seed.</summary>
        public void NextSeed()
        {
            _camera.Seed++;
            _camera.ResetWorld();
        }

        /// <summary>For a key or a button of the scene: the world goes on under another prompt.</summary>
        public void NextPrompt() => _camera.ChangePrompt(Prompts[_prompt++ % Prompts.Length]);
    }
}
