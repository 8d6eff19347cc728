using NUnit.Framework;

namespace Worldwire.Tests
{
    public sealed class MessageTests
    {
        private static byte[] Encode(Message message)
        {
            var writer = new MsgPackWriter();
            message.Encode(writer);
            return writer.ToArray();
        }

        private static Message Decode(byte[] data) =>
            new MessageCodec().Decode(data, 0, data.Length, new FrameMessage());

        private static byte[] Hex(string text)
        {
            var data = new byte[text.Length / 2];
            for (int i = 0; i < data.Length; i++) data[i] = System.Convert.ToByte(text.Substring(2 * i, 2), 16);
            return data;
        }

        [Test]
        public void TheBytesAreThoseOfTheSpecification()
        {
            var input = new InputMessage
            {
                Session = 1, Seq = 1, Control = new Control { Keys = Keys.Back | Keys.Jump, YawDeg = -0.25 },
            };
            byte[] expected = Hex(
                "85a474797065a5696e707574a46b65797392a46261636ba46a756d70a86c6f6f6b5f64656792cbbfd0000000000000"
                + "cb0000000000000000a773657373696f6e01a373657101");
            CollectionAssert.AreEqual(expected, Encode(input));
        }

        [Test]
        public void AMessageThatIsReadIsWrittenTheSame()
        {
            byte[] error = Hex(
                "85a474797065a56572726f72a4636f6465a56572726f72a770726f626c656db174686520736572766572206661696c6564"
                + "a773657373696f6e01a5666174616cc3");
            CollectionAssert.AreEqual(error, Encode(Decode(error)));
        }

        [Test]
        public void AnythingElseIsRefusedWithATypedError()
        {
            string[] none = { "", "c0", "80", "81a474797065a474656c65", "dfffffffff", "83a474797065a6637265646974" };
            foreach (string hex in none)
            {
                byte[] data = Hex(hex);
                WorldwireException error = Assert.Throws<WorldwireException>(() => Decode(data));
                Assert.AreEqual(ErrorCode.BadMessage, error.Code);
            }
        }

        [Test]
        public void NumbersTakeTheirShortestForm()
        {
            var writer = new MsgPackWriter();
            foreach (long value in new[] { 0, 127, 128, 65536, -1, -33, -129 }) writer.Int(value);
            CollectionAssert.AreEqual(Hex("007fcc80ce00010000ffd0dfd1ff7f"), writer.ToArray());
        }
    }
}
