using System;

namespace Worldwire
{
    /// <summary>A position in metres; on the wire x points right, y down, z forward.</summary>
    public struct Vec3
    {
        public double X, Y, Z;

        public Vec3(double x, double y, double z)
        {
            X = x;
            Y = y;
            Z = z;
        }
    }

    /// <summary>A rotation as a quaternion, x y z w.</summary>
    public struct Quat
    {
        public double X, Y, Z, W;

        public Quat(double x, double y, double z, double w)
        {
            X = x;
            Y = y;
            Z = z;
            W = w;
        }

        public static Quat Identity => new Quat(0, 0, 0, 1);

        public double Length => Math.Sqrt(X * X + Y * Y + Z * Z + W * W);
    }

    /// <summary>A camera-to-world pose.</summary>
    public struct WorldPose
    {
        public Vec3 Position;
        public Quat Rotation;

        public WorldPose(Vec3 position, Quat rotation)
        {
            Position = position;
            Rotation = rotation;
        }
    }

    /// <summary>
    /// Between Unity's axes (x right, y up, z forward, left-handed) and the wire's (x right, y down, z forward).
    /// </summary>
    public static class Axes
    {
        /// <summary>The mirror of y; it is its own inverse, so it serves both directions.</summary>
        public static Vec3 MirrorY(Vec3 position) => new Vec3(position.X, -position.Y, position.Z);

        /// <summary>The rotation as seen in the mirrored axes; its own inverse too.</summary>
        public static Quat MirrorY(Quat rotation) =>
            new Quat(-rotation.X, rotation.Y, -rotation.Z, rotation.W);
    }
}
