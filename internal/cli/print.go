package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Say prints a line for people, of which no part can look like another line,
// whatever a server, an image or a path puts into it.
func Say(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "cloopfs: %s\n", OneLine(fmt.Sprintf(format, args...)))
}

// Row prints a line of a report: the name of what is said, and what.
func Row(w io.Writer, name, format string, args ...any) {
	fmt.Fprintf(w, "%s\t%s\n", name, OneLine(fmt.Sprintf(format, args...)))
}

// OneLine keeps a message in one line of readable length.
func OneLine(s string) string {
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

// Quote is a word as a shell has to see it, for commands that people copy.
func Quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:,=@%"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
