using System.Threading;
using NUnit.Framework;

namespace Worldwire.Tests
{
    public sealed class ConnectionTests
    {
        /// <summary>Port 1 of this machine: nobody listens there.</summary>
        private const string Nobody = "tcp://127.0.0.1:1";

        private static LiveWorld World(string address) =>
            new LiveWorld(new LiveOptions { Client = new ClientOptions { Address = address } });

        private static void UpdateUntil(LiveWorld world, WorldState state)
        {
            for (int i = 0; i < 500 && world.State != state; i++)
            {
                world.Update();
                Thread.Sleep(10);
            }
            Assert.AreEqual(state, world.State);
        }

        [Test]
        public void NobodyThereIsSaidAndTriedAgain()
        {
            LiveWorld world = World(Nobody);
            world.Open();
            UpdateUntil(world, WorldState.NothingListens);
            Assert.AreEqual(
                "No server at 127.0.0.1:1. Start it with `worldwire serve`. Retrying in 2 s.", world.Describe());
            world.Close();
            Assert.AreEqual(WorldState.Closed, world.State);
        }

        [Test]
        public void AWrongAddressIsSaidAtOnce()
        {
            LiveWorld world = World("http://example");
            world.Open();
            Assert.AreEqual(WorldState.Refused, world.State);
            Assert.AreEqual(ErrorCode.BadConfig, world.Problem.Code);
            world.Close();
        }

        [Test]
        public void AddressesAreTakenApart()
        {
            Assert.AreEqual("tcp://localhost:5555", ServerAddress.Parse("localhost:5555").ToString());
            Assert.AreEqual("::1", ServerAddress.Parse("tcp://[::1]:80").Host);
            foreach (string wrong in new[] { null, "", "tcp://", "host", "host:", "host:0", "host:70000", ":1" })
            {
                Assert.Throws<WorldwireException>(() => ServerAddress.Parse(wrong));
            }
        }

        [Test]
        public void OpeningAndClosingManyTimesLeavesNothing()
        {
            LiveWorld world = World(Nobody);
            for (int i = 0; i < 20; i++)
            {
                world.Open();
                world.Update();
                world.Close();
            }
            Assert.AreEqual(WorldState.Closed, world.State);
        }
    }
}
