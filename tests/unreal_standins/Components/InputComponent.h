#pragma once
#include "InputCoreTypes.h"
class UInputComponent
{
public:
	template <class T>
	void BindKey(const FKey&, EInputEvent, T*, void (T::*)()) {}
	template <class T>
	void BindAxisKey(const FKey&, T*, void (T::*)(float)) {}
};
