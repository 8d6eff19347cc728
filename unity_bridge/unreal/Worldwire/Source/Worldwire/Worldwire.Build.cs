using System.IO;
using UnrealBuildTool;

public class Worldwire : ModuleRules
{
	public Worldwire(ReadOnlyTargetRules Target) : base(Target)
	{
		PCHUsage = PCHUsageMode.UseExplicitOrSharedPCHs;
		bEnableExceptions = false;
		bUseRTTI = false;

		PublicDependencyModuleNames.AddRange(new[] { "Core", "CoreUObject", "Engine" });
		PrivateDependencyModuleNames.AddRange(new[] { "InputCore", "RHI", "RenderCore", "Sockets" });

		string ThirdParty = Path.Combine(ModuleDirectory, "ThirdParty");
		PrivateIncludePaths.Add(Path.Combine(ThirdParty, "worldwire"));
		AddEncryption(Path.Combine(ThirdParty, "libzmq"));
	}

	// Server keys (CURVE) need libzmq: put zmq.h into ThirdParty/libzmq/include and a static library into
	// ThirdParty/libzmq/lib. Without them a component that has a server key says what is missing.
	private void AddEncryption(string Folder)
	{
		string Library = Path.Combine(Folder, "lib", Target.Platform == UnrealTargetPlatform.Win64 ? "libzmq.lib" : "libzmq.a");
		if (!File.Exists(Library))
		{
			return;
		}
		PrivateIncludePaths.Add(Path.Combine(Folder, "include"));
		PublicAdditionalLibraries.Add(Library);
		PrivateDefinitions.Add("ZMQ_STATIC=1");
		PrivateDefinitions.Add("WORLDWIRE_WITH_LIBZMQ=1");
	}
}
