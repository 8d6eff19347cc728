// The little of the Input System package that WorldwireInput needs.
namespace UnityEngine.InputSystem
{
    public sealed class ButtonControl
    {
        public bool isPressed, wasPressedThisFrame;
    }

    public sealed class Vector2Control
    {
        public Vector2 Value;
        public Vector2 ReadValue() { return Value; }
    }

    public sealed class Keyboard
    {
        public static Keyboard current;
        public readonly ButtonControl wKey = new ButtonControl(), aKey = new ButtonControl(), sKey = new ButtonControl(),
            dKey = new ButtonControl(), upArrowKey = new ButtonControl(), downArrowKey = new ButtonControl(),
            leftArrowKey = new ButtonControl(), rightArrowKey = new ButtonControl(), spaceKey = new ButtonControl(),
            escapeKey = new ButtonControl();
    }

    public sealed class Mouse
    {
        public static Mouse current;
        public readonly ButtonControl leftButton = new ButtonControl();
        public readonly Vector2Control delta = new Vector2Control();
    }

    public sealed class Gamepad
    {
        public static Gamepad current;
        public readonly ButtonControl buttonSouth = new ButtonControl(), rightTrigger = new ButtonControl();
        public readonly Vector2Control leftStick = new Vector2Control(), rightStick = new Vector2Control();
    }
}
