using System;
using System.Reflection;
using NUnit.Framework;

namespace Worldwire.Tests
{
    /// <summary>
    /// The components under stand-ins for Unity. Reflection stands where Unity calls private methods.
    /// </summary>
    internal static class Program
    {
        private static int Main(string[] args)
        {
            switch (args[0])
            {
                case "nunit": return RunTests(args);
                case "statics": return ListMutableStatics(args);
                case "lives": return LifeProgram.Lives(args[1]);
                case "outputs": return LifeProgram.Outputs(args[1]);
                case "nobody": return LifeProgram.Nobody(args[1]);
                case "input": return InputProgram.Run();
                case "warp": return WarpProgram.Run();
                case "editor": return EditorProgram.Run(args[1], args[2]);
                default: throw new ArgumentException(args[0]);
            }
        }

        /// <summary>nunit ASSEMBLY...: every test of them.</summary>
        private static int RunTests(string[] args)
        {
            int failed = 0, count = 0;
            for (int i = 1; i < args.Length; i++)
            {
                foreach (Type type in Assembly.LoadFrom(args[i]).GetTypes())
                {
                    foreach (MethodInfo method in type.GetMethods())
                    {
                        if (!method.IsDefined(typeof(TestAttribute), false)) continue;
                        count++;
                        failed += RunTest(type, method);
                    }
                }
            }
            Console.WriteLine("tests {0} failed {1}", count, failed);
            return failed == 0 && count > 0 ? 0 : 1;
        }

        private static int RunTest(Type type, MethodInfo method)
        {
            try
            {
                method.Invoke(Activator.CreateInstance(type), null);
                return 0;
            }
            catch (TargetInvocationException error)
            {
                Console.WriteLine("{0}.{1}: {2}", type.Name, method.Name, error.InnerException);
                return 1;
            }
        }

        /// <summary>
        /// statics ASSEMBLY...: static fields that can change, which would outlive a Play without domain
        /// reload.
        /// </summary>
        private static int ListMutableStatics(string[] args)
        {
            const BindingFlags all = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic
                | BindingFlags.DeclaredOnly;
            int found = 0;
            for (int i = 1; i < args.Length; i++)
            {
                foreach (Type type in Assembly.LoadFrom(args[i]).GetTypes())
                {
                    foreach (FieldInfo field in type.GetFields(all))
                    {
                        bool ofCompiler = field.Name.StartsWith("<") || type.Name.StartsWith("<");
                        if (field.IsLiteral || field.IsInitOnly || ofCompiler) continue;
                        Console.WriteLine("{0}.{1}", type.FullName, field.Name);
                        found++;
                    }
                }
            }
            return found == 0 ? 0 : 1;
        }
    }
}
