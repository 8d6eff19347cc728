using UnityEngine;
using UnityEngine.XR;

namespace Worldwire.Samples
{
    /// <summary>
    /// Steers the generated world by the pose of a headset, and turns each frame to the newest pose. Put it on an
    /// object with a WorldwireCamera; it takes that component's place as the source of the pose.
    /// </summary>
    [RequireComponent(typeof(WorldwireCamera))]
    public sealed class HeadPose : MonoBehaviour
    {
        private void OnEnable()
        {
            WorldwireCamera view = GetComponent<WorldwireCamera>();
            view.SendPose = true;
            view.Reproject = true;
            view.PoseSource = transform;
        }

        private void Update()
        {
            InputDevice head = InputDevices.GetDeviceAtXRNode(XRNode.CenterEye);
            Vector3 position;
            Quaternion rotation;
            bool moved = head.TryGetFeatureValue(CommonUsages.centerEyePosition, out position);
            bool turned = head.TryGetFeatureValue(CommonUsages.centerEyeRotation, out rotation);
            if (moved) transform.localPosition = position;
            if (turned) transform.localRotation = rotation;
        }
    }
}
