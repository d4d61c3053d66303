package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// say prints a line for people, of which no part can look like another line,
// whatever a server, an image or a path puts into it.
func say(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "cloopfs: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

// row prints a line of a report: the name of what is said, and what.
func row(w io.Writer, name, format string, args ...any) {
	fmt.Fprintf(w, "%s\t%s\n", name, oneLine(fmt.Sprintf(format, args...)))
}

// oneLine keeps a message in one line of readable length.
func oneLine(s string) string {
	const most = 1000
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// quote is a word as a shell has to see it, for commands that people copy.
func quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:,=@%"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
