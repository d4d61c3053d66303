package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The pages for users speak of every flag and command that there is, and of no other flag.
func TestManual(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, page := range append(pages, "../../README.md") {
		p, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(p)
	}
	known := make(map[string]bool)
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if cmd.Runnable() && cmd.HasParent() && !cmd.Hidden && cmd.Parent().Name() != "completion" && !strings.Contains(text.String(), cmd.CommandPath()) {
			t.Errorf("no page speaks of %s", cmd.CommandPath())
		}
		cmd.InitDefaultHelpFlag()
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			known[f.Name] = true
			if f.Hidden || f.Name == "help" || f.Name == "no-descriptions" {
				return
			}
			name := "--" + f.Name + `\b`
			if f.Shorthand != "" {
				name += "|[ `]-" + f.Shorthand + `\b`
			}
			if !regexp.MustCompile(name).MatchString(text.String()) {
				t.Errorf("no page speaks of %s --%s", cmd.CommandPath(), f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(newRootCmd())
	for _, m := range regexp.MustCompile(`(?m)(?:^| )cloopfs [a-z].*`).FindAllString(text.String(), -1) {
		command, _, _ := strings.Cut(m, "`")
		command, _, _ = strings.Cut(command, "|")
		for _, flag := range regexp.MustCompile(` --([a-z][a-z-]*)`).FindAllStringSubmatch(command, -1) {
			if !known[flag[1]] {
				t.Errorf("%s: there is no --%s", strings.TrimSpace(m), flag[1])
			}
		}
	}
}
