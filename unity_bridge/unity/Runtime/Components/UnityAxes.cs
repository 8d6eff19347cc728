using UnityEngine;

namespace Worldwire
{
    /// <summary>Poses between Unity (y up, left-handed, any unit) and the wire (y down, metres).</summary>
    public static class UnityAxes
    {
        public static WorldPose ToWire(Vector3 position, Quaternion rotation, float metresPerUnit)
        {
            Vec3 metres = new Vec3(
                position.x * metresPerUnit, position.y * metresPerUnit, position.z * metresPerUnit);
            return new WorldPose(Axes.MirrorY(metres), ToWire(rotation));
        }

        public static Quat ToWire(Quaternion rotation) =>
            Axes.MirrorY(new Quat(rotation.x, rotation.y, rotation.z, rotation.w));

        public static Vector3 FromWire(Vec3 position, float metresPerUnit)
        {
            Vec3 metres = Axes.MirrorY(position);
            return new Vector3((float)metres.X, (float)metres.Y, (float)metres.Z) / metresPerUnit;
        }

        public static Quaternion FromWire(Quat rotation)
        {
            Quat q = Axes.MirrorY(rotation);
            return new Quaternion((float)q.X, (float)q.Y, (float)q.Z, (float)q.W);
        }
    }

    /// <summary>
    /// Where in Unity's world the generated one begins: a place and a heading. Pitch and roll are left out, so that
    /// both worlds have the same up.
    /// </summary>
    public struct WorldOrigin
    {
        private Vector3 _position;
        private Quaternion _heading;

        public static WorldOrigin At(Transform transform)
        {
            Vector3 ahead = transform.rotation * Vector3.forward;
            float yaw = Mathf.Atan2(ahead.x, ahead.z) * Mathf.Rad2Deg;
            return new WorldOrigin
            {
                _position = transform.position,
                _heading = Quaternion.Euler(0, yaw, 0),
            };
        }

        /// <summary>The pose of a transform as the wire wants it.</summary>
        public WorldPose ToWire(Transform transform, float metresPerUnit)
        {
            Quaternion back = Quaternion.Inverse(_heading);
            return UnityAxes.ToWire(
                back * (transform.position - _position), back * transform.rotation, metresPerUnit);
        }

        /// <summary>A camera of the generated world as a pose in Unity's.</summary>
        public void FromWire(WorldPose pose, float metresPerUnit, out Vector3 position, out Quaternion rotation)
        {
            position = _position + _heading * UnityAxes.FromWire(pose.Position, metresPerUnit);
            rotation = _heading * UnityAxes.FromWire(pose.Rotation);
        }
    }
}
