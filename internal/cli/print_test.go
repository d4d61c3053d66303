package cli

import "testing"

func TestOneLine(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"plain", "plain"},
		{"two\nlines", "two lines"},
		{"a\r\nb", "a  b"},
		{"tab\there", "tab here"},
		{"\x1b[31mred\x1b[0m", " [31mred [0m"},
		{"nul\x00 bell\x07 del\x7f", "nul  bell  del "},
		{"Grüße, 世界", "Grüße, 世界"},
		{"\n", " "},
	}
	for _, tt := range tests {
		if got := OneLine(tt.in); got != tt.want {
			t.Errorf("OneLine(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"":                  "''",
		"/media/image":      "/media/image",
		"k.iso#A":           "'k.iso#A'",
		"/media/my disk":    "'/media/my disk'",
		"it's":              `'it'\''s'`,
		"http://h/f?a&b":    "'http://h/f?a&b'",
		"$(rm)":             "'$(rm)'",
		"~/x":               "'~/x'",
		"http://[::1]:80/f": "'http://[::1]:80/f'",
	} {
		if got := Quote(word); got != want {
			t.Errorf("Quote(%q) = %s, want %s", word, got, want)
		}
	}
}
