using UnityEngine;

namespace Worldwire.Samples
{
    /// <summary>
    /// A window into the generated world on a quad: put this on the quad. The frames go through a RenderTexture, so
    /// any material and render pipeline shows them.
    /// </summary>
    [RequireComponent(typeof(Renderer))]
    public sealed class ScreenOnAWall : MonoBehaviour
    {
        public int Width = 640;
        public int Height = 384;

        private RenderTexture _target;

        private void Awake()
        {
            _target = new RenderTexture(Width, Height, 0);
            GetComponent<Renderer>().material.mainTexture = _target;
            WorldwireCamera view = gameObject.AddComponent<WorldwireCamera>();
            view.Output = WorldwireOutput.RenderTexture;
            view.Target = _target;
        }

        private void OnDestroy() => Destroy(_target);
    }
}
