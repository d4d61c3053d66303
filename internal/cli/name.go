package cli

import (
	"errors"
	"path/filepath"
)

// Name is a flag's value that can't be empty: a script that has lost a variable
// does not mean the default.
type Name string

// Set takes the value as it was typed.
func (v *Name) Set(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	*v = Name(s)
	return nil
}

// String is the value as it can be typed.
func (v *Name) String() string { return string(*v) }

// Type is what help calls the value.
func (v *Name) Type() string { return "string" }

// MakeAbsolute makes an absolute path of one.
func (v *Name) MakeAbsolute() error {
	abs, err := filepath.Abs(string(*v))
	*v = Name(abs)
	return err
}
