using System.Runtime.CompilerServices;

[assembly: InternalsVisibleTo("Worldwire.Runtime.Tests")]
[assembly: InternalsVisibleTo("Worldwire.Editor.Tests")]
