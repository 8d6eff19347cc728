using UnityEngine;
#if ENABLE_INPUT_SYSTEM && WORLDWIRE_INPUT_SYSTEM
using UnityEngine.InputSystem;
#endif

namespace Worldwire
{
    /// <summary>
    /// Keyboard, mouse and gamepad as a player's keys and look; works with the Input System package and with the old
    /// Input Manager. W A S D or arrows, space, left mouse button; mouse or right stick to look.
    /// </summary>
    [AddComponentMenu("Worldwire/Worldwire Input")]
    [DisallowMultipleComponent]
    public sealed class WorldwireInput : MonoBehaviour
    {
        private const float StickThreshold = 0.5f;
        private const float PixelsPerOldMouseUnit = 20f;

        [Tooltip("Degrees that the view turns for each pixel that the mouse moves.")]
        [Min(0)] public float DegreesPerPixel = 0.12f;

        [Tooltip("Degrees a second that a fully moved right stick turns the view.")]
        [Min(0)] public float StickDegreesPerSecond = 120f;

        [Tooltip("Take the mouse only while the cursor is locked: click to lock, Escape to free it.")]
        public bool LockCursor = true;

        [Tooltip("Moving the mouse up looks down.")]
        public bool InvertPitch;

        private Keys _extraKeys;

        /// <summary>Holds keys for one update on top of what is pressed; for touch buttons and scripts.</summary>
        public void Press(Keys keys) => _extraKeys |= keys;

        /// <summary>What is held now, and the turn since the last call. + yaw is right, + pitch is up.</summary>
        public Control Read()
        {
            Keys keys = _extraKeys;
            Vector2 look = Vector2.zero;
            _extraKeys = Keys.None;
            if (isActiveAndEnabled)
            {
#if ENABLE_INPUT_SYSTEM && WORLDWIRE_INPUT_SYSTEM
                ReadInputSystem(ref keys, ref look);
#elif ENABLE_LEGACY_INPUT_MANAGER
                ReadInputManager(ref keys, ref look);
#endif
            }
            return new Control { Keys = keys, YawDeg = look.x, PitchDeg = InvertPitch ? -look.y : look.y };
        }

        private void OnDisable()
        {
            if (LockCursor) Cursor.lockState = CursorLockMode.None;
        }

        private bool TakesMouse(bool clicked, bool escaped)
        {
            if (!LockCursor) return true;
            if (escaped) Cursor.lockState = CursorLockMode.None;
            else if (clicked) Cursor.lockState = CursorLockMode.Locked;
            return Cursor.lockState == CursorLockMode.Locked;
        }

        private static Keys If(bool held, Keys key) => held ? key : Keys.None;

#if ENABLE_INPUT_SYSTEM && WORLDWIRE_INPUT_SYSTEM
        private void ReadInputSystem(ref Keys keys, ref Vector2 look)
        {
            Keyboard keyboard = Keyboard.current;
            if (keyboard != null)
            {
                keys |= If(keyboard.wKey.isPressed || keyboard.upArrowKey.isPressed, Keys.Forward);
                keys |= If(keyboard.sKey.isPressed || keyboard.downArrowKey.isPressed, Keys.Back);
                keys |= If(keyboard.aKey.isPressed || keyboard.leftArrowKey.isPressed, Keys.Left);
                keys |= If(keyboard.dKey.isPressed || keyboard.rightArrowKey.isPressed, Keys.Right);
                keys |= If(keyboard.spaceKey.isPressed || keyboard.spaceKey.wasPressedThisFrame, Keys.Jump);
            }
            Mouse mouse = Mouse.current;
            bool escaped = keyboard != null && keyboard.escapeKey.wasPressedThisFrame;
            if (mouse != null && TakesMouse(mouse.leftButton.wasPressedThisFrame, escaped))
            {
                keys |= If(mouse.leftButton.isPressed || mouse.leftButton.wasPressedThisFrame, Keys.Attack);
                look += mouse.delta.ReadValue() * DegreesPerPixel;
            }
            if (Gamepad.current != null) ReadGamepad(Gamepad.current, ref keys, ref look);
        }

        private void ReadGamepad(Gamepad gamepad, ref Keys keys, ref Vector2 look)
        {
            Vector2 move = gamepad.leftStick.ReadValue();
            keys |= If(move.y > StickThreshold, Keys.Forward) | If(move.y < -StickThreshold, Keys.Back);
            keys |= If(move.x > StickThreshold, Keys.Right) | If(move.x < -StickThreshold, Keys.Left);
            keys |= If(gamepad.buttonSouth.isPressed, Keys.Jump) | If(gamepad.rightTrigger.isPressed, Keys.Attack);
            look += gamepad.rightStick.ReadValue() * (StickDegreesPerSecond * Time.unscaledDeltaTime);
        }
#elif ENABLE_LEGACY_INPUT_MANAGER
        private void ReadInputManager(ref Keys keys, ref Vector2 look)
        {
            keys |= If(Held(KeyCode.W) || Held(KeyCode.UpArrow), Keys.Forward);
            keys |= If(Held(KeyCode.S) || Held(KeyCode.DownArrow), Keys.Back);
            keys |= If(Held(KeyCode.A) || Held(KeyCode.LeftArrow), Keys.Left);
            keys |= If(Held(KeyCode.D) || Held(KeyCode.RightArrow), Keys.Right);
            keys |= If(Held(KeyCode.Space), Keys.Jump);
            if (!TakesMouse(Input.GetKeyDown(KeyCode.Mouse0), Input.GetKeyDown(KeyCode.Escape))) return;
            keys |= If(Held(KeyCode.Mouse0), Keys.Attack);
            var mouse = new Vector2(Input.GetAxisRaw("Mouse X"), Input.GetAxisRaw("Mouse Y"));
            look += mouse * (PixelsPerOldMouseUnit * DegreesPerPixel);
        }

        /// <summary>Down now, or pressed and released since the last frame: no press is lost.</summary>
        private static bool Held(KeyCode key) => Input.GetKey(key) || Input.GetKeyDown(key);
#endif
    }
}
