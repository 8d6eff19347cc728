namespace Worldwire
{
    /// <summary>Where encrypted transports come from: libzmq, if the project defines WORLDWIRE_CURVE.</summary>
    internal static class Encryption
    {
        internal static ITransport Transport(ServerAddress address, ClientOptions options)
        {
#if WORLDWIRE_CURVE
            return new CurveTransport(address, options.ServerKey, options.ClientPublicKey, options.ClientSecretKey);
#else
            throw new WorldwireException(
                ErrorCode.MissingExtra, "A key is given, but this build cannot encrypt",
                "the scripting define WORLDWIRE_CURVE and libzmq", "neither",
                "See the page on encryption, or leave the key empty.");
#endif
        }
    }
}
