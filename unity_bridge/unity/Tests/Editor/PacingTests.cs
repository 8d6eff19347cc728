using NUnit.Framework;

namespace Worldwire.Tests
{
    public sealed class PacingTests
    {
        private const long Millisecond = Clock.NanosecondsPerMillisecond;

        [Test]
        public void ABurstIsSpreadOverTheTimeOfTheWorld()
        {
            var pacer = new FramePacer { Rate = 10 };
            int shown = 0;
            for (long ms = 0; ms < 500; ms += 10) shown += pacer.Due(ms * Millisecond, 8 - shown, 8);
            Assert.AreEqual(5, shown);
        }

        [Test]
        public void ALateUpdateShowsTheFrameThatIsDue()
        {
            var pacer = new FramePacer { Rate = 10 };
            Assert.AreEqual(1, pacer.Due(0, 8, 8));
            Assert.AreEqual(3, pacer.Due(350 * Millisecond, 7, 8));
        }

        [Test]
        public void AfterAnUnderrunTheNextFrameIsShownAtOnce()
        {
            var pacer = new FramePacer { Rate = 10 };
            Assert.AreEqual(1, pacer.Due(0, 1, 8));
            Assert.AreEqual(0, pacer.Due(900 * Millisecond, 0, 8));
            Assert.AreEqual(1, pacer.Due(901 * Millisecond, 1, 8));
            Assert.AreEqual(0, pacer.Due(902 * Millisecond, 1, 8));
        }

        [Test]
        public void WhatAHiccupLeftIsPlayedFaster()
        {
            var pacer = new FramePacer { Rate = 50 };
            int shown = 0;
            for (long ms = 0; ms < 4000; ms += 5) shown += pacer.Due(ms * Millisecond, 6, 2);
            Assert.IsTrue(shown > 205);
        }
    }
}
