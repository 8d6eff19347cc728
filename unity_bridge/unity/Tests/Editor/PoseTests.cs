using NUnit.Framework;
using UnityEngine;

namespace Worldwire.Tests
{
    public sealed class PoseTests
    {
        private const float Tolerance = 1e-5f;

        [Test]
        public void UpInUnityIsDownOnTheWire()
        {
            WorldPose pose = UnityAxes.ToWire(new Vector3(1, 2, 3), Quaternion.identity, 1);
            Assert.AreEqual(1, pose.Position.X, Tolerance);
            Assert.AreEqual(-2, pose.Position.Y, Tolerance);
            Assert.AreEqual(3, pose.Position.Z, Tolerance);
        }

        [Test]
        public void ATurnToTheRightIsATurnAroundTheWiresDownAxis()
        {
            Quat right = UnityAxes.ToWire(Quaternion.Euler(0, 90, 0));
            Assert.AreEqual(System.Math.Sqrt(0.5), right.Y, Tolerance);
            Assert.AreEqual(System.Math.Sqrt(0.5), right.W, Tolerance);
        }

        [Test]
        public void LookingUpIsAPositiveTurnAroundTheWiresRightAxis()
        {
            Quat up = UnityAxes.ToWire(Quaternion.Euler(-30, 0, 0));
            Assert.AreEqual(System.Math.Sin(System.Math.PI / 12), up.X, Tolerance);
        }

        [Test]
        public void APoseComesBackAsItWent()
        {
            var transform = new GameObject().transform;
            transform.position = new Vector3(3, 1, -2);
            transform.rotation = Quaternion.Euler(20, 70, 0);
            WorldOrigin origin = WorldOrigin.At(transform);
            transform.position = new Vector3(4, 1.5f, 5);
            transform.rotation = Quaternion.Euler(-10, 200, 5);
            Vector3 position;
            Quaternion rotation;
            origin.FromWire(origin.ToWire(transform, 0.5f), 0.5f, out position, out rotation);
            Assert.AreEqual(4, position.x, Tolerance);
            Assert.AreEqual(1.5, position.y, Tolerance);
            Assert.AreEqual(5, position.z, Tolerance);
            Quaternion left = Quaternion.Inverse(transform.rotation) * rotation;
            Assert.AreEqual(1, System.Math.Abs(left.w), Tolerance);
        }

        [Test]
        public void TheOriginKeepsTheHorizon()
        {
            var transform = new GameObject().transform;
            transform.rotation = Quaternion.Euler(25, 40, 0);
            Quat first = WorldOrigin.At(transform).ToWire(transform, 1).Rotation;
            Assert.AreEqual(0, first.Y, Tolerance);
            Assert.AreEqual(-System.Math.Sin(25 * System.Math.PI / 360), first.X, Tolerance);
        }

        [Test]
        public void WithoutATurnReprojectionLeavesThePictureAlone()
        {
            var matrix = new double[9];
            var rotation = new Quat(0.1, 0.7, -0.2, 0.6);
            Reprojection.Homography(rotation, rotation, 0.8, 0.5, 0.8, 0.5, matrix);
            for (int i = 0; i < 9; i++) Assert.AreEqual(i % 4 == 0 ? 1 : 0, matrix[i], 1e-12);
        }
    }
}
