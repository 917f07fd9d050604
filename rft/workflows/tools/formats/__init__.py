"""The formats in which models write tool calls. All are pure: any text gives a reply, in time linear in its length."""
