package main

import (
	"errors"
	"path/filepath"
)

// nameValue is a flag's value that can't be empty: a script that has lost a variable
// does not mean the default.
type nameValue string

func (v *nameValue) Set(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	*v = nameValue(s)
	return nil
}

func (v *nameValue) String() string { return string(*v) }

func (v *nameValue) Type() string { return "string" }

// makeAbsolute makes an absolute path of one.
func (v *nameValue) makeAbsolute() error {
	abs, err := filepath.Abs(string(*v))
	*v = nameValue(abs)
	return err
}
