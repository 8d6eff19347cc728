// The little of NUnit that the package's tests use.
using System;

namespace NUnit.Framework
{
    [AttributeUsage(AttributeTargets.Method)] public sealed class TestAttribute : Attribute { }
    [AttributeUsage(AttributeTargets.Method)] public sealed class TearDownAttribute : Attribute { }

    public static class Assert
    {
        public static void AreEqual(object expected, object actual)
        {
            if (!Equals(expected, actual)) throw new Exception("expected " + expected + ", got " + actual);
        }

        public static void AreEqual(double expected, double actual, double tolerance)
        {
            if (!(Math.Abs(expected - actual) <= tolerance)) throw new Exception("expected " + expected + ", got " + actual);
        }

        public static void IsTrue(bool holds) { AreEqual(true, holds); }
        public static void IsFalse(bool holds) { AreEqual(false, holds); }
        public static void IsNull(object value) { AreEqual(null, value); }
        public static void IsNotNull(object value) { AreEqual(true, value != null); }

        public static T Throws<T>(Action action) where T : Exception
        {
            try
            {
                action();
            }
            catch (T error)
            {
                return error;
            }
            throw new Exception("expected " + typeof(T).Name);
        }
    }

    public static class CollectionAssert
    {
        public static void AreEqual(byte[] expected, byte[] actual)
        {
            Assert.AreEqual(BitConverter.ToString(expected), BitConverter.ToString(actual));
        }
    }
}
