using UnityEngine;

namespace Worldwire.Samples
{
    /// <summary>
    /// Put this on an empty object of an empty scene and press Play: W A S D and the mouse walk through the world.
    /// NextSeed and NextPrompt are for buttons of yours.
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

        /// <summary>The same world from another seed.</summary>
        public void NextSeed()
        {
            _camera.Seed++;
            _camera.ResetWorld();
        }

        /// <summary>The world goes on under another prompt.</summary>
        public void NextPrompt() => _camera.ChangePrompt(Prompts[_prompt++ % Prompts.Length]);
    }
}
