using System;

namespace Worldwire
{
    /// <summary>
    /// Late reprojection: where in the newest frame a viewer sees what, whose head has turned since. Rotation only:
    /// the homography K_frame R K_view^-1.
    /// </summary>
    public static class Reprojection
    {
        /// <summary>
        /// Row by row, the 3 x 3 matrix from a place on the screen (u right, v down, each 0 to 1) to one in the
        /// frame. A third coordinate of 0 or less is behind the frame's camera.
        /// </summary>
        /// <param name="frame">Rotation of the frame's camera, camera to world, wire axes.</param>
        /// <param name="view">Rotation of the viewer, alike.</param>
        /// <param name="frameTanX">Tangent of half the frame's horizontal field of view; the others alike.</param>
        /// <param name="into">Nine numbers.</param>
        public static void Homography(
            Quat frame, Quat view, double frameTanX, double frameTanY, double viewTanX, double viewTanY,
            double[] into)
        {
            Relative(frame, view, into);
            for (int row = 0; row < 3; row++)
            {
                // Ray of a screen place: (2u - 1) tanX, (2v - 1) tanY, 1.
                double x = into[3 * row], y = into[3 * row + 1], z = into[3 * row + 2];
                into[3 * row] = 2 * viewTanX * x;
                into[3 * row + 1] = 2 * viewTanY * y;
                into[3 * row + 2] = z - viewTanX * x - viewTanY * y;
            }
            for (int column = 0; column < 3; column++)
            {
                double depth = into[6 + column];
                into[column] = 0.5 * (into[column] / frameTanX + depth);
                into[3 + column] = 0.5 * (into[3 + column] / frameTanY + depth);
            }
        }

        /// <summary>The rotation from the viewer's axes to the frame camera's: frame^-1 view.</summary>
        private static void Relative(Quat frame, Quat view, double[] into)
        {
            Quat q = Multiply(new Quat(-frame.X, -frame.Y, -frame.Z, frame.W), view);
            double n = q.X * q.X + q.Y * q.Y + q.Z * q.Z + q.W * q.W;
            if (n == 0) throw new ArgumentException("a quaternion of length 0");
            double s = 2 / n;
            into[0] = 1 - s * (q.Y * q.Y + q.Z * q.Z);
            into[1] = s * (q.X * q.Y - q.Z * q.W);
            into[2] = s * (q.X * q.Z + q.Y * q.W);
            into[3] = s * (q.X * q.Y + q.Z * q.W);
            into[4] = 1 - s * (q.X * q.X + q.Z * q.Z);
            into[5] = s * (q.Y * q.Z - q.X * q.W);
            into[6] = s * (q.X * q.Z - q.Y * q.W);
            into[7] = s * (q.Y * q.Z + q.X * q.W);
            into[8] = 1 - s * (q.X * q.X + q.Y * q.Y);
        }

        private static Quat Multiply(Quat a, Quat b) => new Quat(
            a.W * b.X + a.X * b.W + a.Y * b.Z - a.Z * b.Y,
            a.W * b.Y - a.X * b.Z + a.Y * b.W + a.Z * b.X,
            a.W * b.Z + a.X * b.Y - a.Y * b.X + a.Z * b.W,
            a.W * b.W - a.X * b.X - a.Y * b.Y - a.Z * b.Z);
    }
}
