#pragma once
// Unreal Header Tool writes this file.
