//! The screens: what is drawn of the snapshots so far. They fit into 80 columns and 24 lines.

use std::collections::{BTreeMap, VecDeque};

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use uring_arena_top::{ArenaView, GroupView, HolderView, Snapshot, StatesView};

/// The samples of an arena that are kept: more than a wide terminal shows.
const HISTORY_MAX: usize = 512;

/// The colors of the states, in the order of [`StatesView::LETTERS`].
const COLORS: [Color; 6] =
    [Color::DarkGray, Color::Yellow, Color::Green, Color::Cyan, Color::Blue, Color::Red];

/// A page of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Overview,
    Map,
    Holders,
    Sockets,
}

impl Page {
    pub const ALL: [Page; 4] = [Page::Overview, Page::Map, Page::Holders, Page::Sockets];

    fn name(self) -> &'static str {
        match self {
            Page::Overview => "overview",
            Page::Map => "map",
            Page::Holders => "holders",
            Page::Sockets => "sockets",
        }
    }
}

/// The state of the program: the last two snapshots, the samples of each arena, and the choices.
pub struct Screen {
    pub page: Page,
    /// The text at the top right: a lost connection, say.
    pub status: String,
    pub has_colors: bool,
    arena: usize,
    /// Lines that are skipped in a list.
    skipped: usize,
    now: Option<Snapshot>,
    before: Option<Snapshot>,
    history: BTreeMap<String, VecDeque<StatesView>>,
}

impl Screen {
    pub fn new(has_colors: bool) -> Screen {
        Screen {
            page: Page::Overview,
            status: "waiting for a snapshot".into(),
            has_colors,
            arena: 0,
            skipped: 0,
            now: None,
            before: None,
            history: BTreeMap::new(),
        }
    }

    /// Takes the next snapshot in.
    pub fn add(&mut self, snapshot: Snapshot) {
        self.status.clear();
        // Another process has samples of its own.
        if self.now.as_ref().is_some_and(|before| before.process != snapshot.process) {
            self.history.clear();
            self.now = None;
        }
        for arena in &snapshot.arenas {
            let samples = self.history.entry(arena.name.clone()).or_default();
            if samples.len() == HISTORY_MAX {
                samples.pop_front();
            }
            samples.push_back(arena.states);
        }
        self.history.retain(|name, _| snapshot.arenas.iter().any(|arena| arena.name == *name));
        self.before = self.now.replace(snapshot);
    }

    pub fn choose(&mut self, page: Page) {
        (self.page, self.skipped) = (page, 0);
    }

    /// Goes on to the next arena, or back to the one before.
    pub fn next_arena(&mut self, is_back: bool) {
        let count = self.now.as_ref().map_or(0, |now| now.arenas.len()).max(1);
        let step = if is_back { count - 1 } else { 1 };
        (self.arena, self.skipped) = ((self.arena + step) % count, 0);
    }

    pub fn scroll(&mut self, lines: isize) {
        self.skipped = self.skipped.saturating_add_signed(lines);
    }

    /// Draws the page.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        if area.width < 20 || area.height < 5 {
            return;
        }
        let row = |y| Rect { y, height: 1, ..area };
        frame.render_widget(self.head(area.width), row(0));
        frame.render_widget(self.tabs(), row(1));
        let keys = " q quit   1-4 page   tab arena   up/down scroll";
        frame.render_widget(Line::styled(keys, self.dim()), row(area.height - 1));
        let body = Rect { y: 2, height: area.height - 3, ..area };
        let Some(now) = &self.now else { return };
        let arena = now.arenas.get(self.arena);
        match (self.page, arena) {
            (Page::Sockets, _) => self.draw_sockets(frame, body, now),
            (_, None) => frame.render_widget(" the snapshot has no arena", body),
            (Page::Overview, Some(arena)) => self.draw_overview(frame, body, now, arena),
            (Page::Map, Some(arena)) => self.draw_map(frame, body, arena),
            (Page::Holders, Some(arena)) => self.draw_holders(frame, body, arena),
        }
    }

    fn dim(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn color_of(&self, state: usize) -> Style {
        if self.has_colors { Style::new().fg(COLORS[state]) } else { Style::new() }
    }

    fn head(&self, width: u16) -> Line<'_> {
        let program = self
            .now
            .as_ref()
            .map_or(String::new(), |now| format!("{} (process {})", now.program, now.process));
        let left = format!(" uring-arena-top  {program}");
        let room = (width as usize).saturating_sub(left.chars().count() + 2);
        let status: String = self.status.chars().take(room).collect();
        let style = Style::new().add_modifier(Modifier::BOLD);
        Line::from(vec![Span::styled(left, style), Span::raw(format!("{status:>room$}"))])
    }

    fn tabs(&self) -> Line<'_> {
        let mut spans = Vec::new();
        for (number, page) in (1..).zip(Page::ALL) {
            let is_chosen = page == self.page;
            let style = if is_chosen { Modifier::REVERSED } else { Modifier::empty() };
            let text = format!(" {number} {} ", page.name());
            spans.push(Span::styled(text, Style::new().add_modifier(style)));
        }
        if let Some(now) = &self.now
            && let Some(arena) = now.arenas.get(self.arena)
            && self.page != Page::Sockets
        {
            let (number, count) = (self.arena + 1, now.arenas.len());
            spans.push(Span::raw(format!("   arena {} ({number} of {count})", arena.name)));
        }
        Line::from(spans)
    }

    fn draw_overview(&self, frame: &mut Frame<'_>, body: Rect, now: &Snapshot, arena: &ArenaView) {
        let chart_lines = body.height.saturating_sub(11).max(1);
        let chart = Rect { height: chart_lines, ..body };
        self.draw_chart(frame.buffer_mut(), chart, arena);
        let mut lines = vec![self.legend(&arena.states)];
        lines.extend(self.numbers(now, arena).into_iter().map(Line::raw));
        let (height, y) = (body.height - chart_lines, body.y + chart_lines);
        let numbers = Rect { y, height: height.min(lines.len() as u16), ..body };
        frame.render_widget(Paragraph::new(lines), numbers);
        let summary = match &arena.holders {
            Some(holders) if holders.tracked > 0 => holders.summary.clone(),
            Some(_) => "nobody".into(),
            None => "not known: build the arena with `track_holders`".into(),
        };
        let text = format!(" Who holds most: {summary}");
        let y = numbers.y + numbers.height;
        let rest = Rect { y, height: body.bottom().saturating_sub(y), ..body };
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), rest);
    }

    /// Draws the states over time: a column for each sample, the newest one at the right.
    fn draw_chart(&self, buffer: &mut Buffer, area: Rect, arena: &ArenaView) {
        const LABEL: u16 = 6;
        for (y, percent) in [(0, "100 %"), (area.height / 2, " 50 %"), (area.height - 1, "  0 %")] {
            buffer.set_string(area.x, area.y + y, percent, self.dim());
        }
        let columns = area.width.saturating_sub(LABEL + 1);
        let Some(samples) = self.history.get(&arena.name) else { return };
        for (column, states) in samples.iter().rev().take(columns as usize).enumerate() {
            let x = area.x + LABEL + columns - 1 - column as u16;
            for (y, state) in stacked(states, area.height).into_iter().enumerate() {
                let letter = StatesView::LETTERS[state].to_string();
                buffer.set_string(x, area.bottom() - 1 - y as u16, letter, self.color_of(state));
            }
        }
    }

    fn legend(&self, states: &StatesView) -> Line<'static> {
        let mut spans = Vec::new();
        for (state, count) in states.counts().into_iter().enumerate() {
            let (letter, name) = (StatesView::LETTERS[state], StatesView::NAMES[state]);
            spans.push(Span::styled(format!(" {letter}"), self.color_of(state)));
            spans.push(Span::raw(format!(" {count} {name}")));
        }
        Line::from(spans)
    }

    /// Writes the numbers of an arena, and of what runs on it.
    fn numbers(&self, now: &Snapshot, arena: &ArenaView) -> Vec<String> {
        let value = |name: &str| arena.metrics.get(name).copied().unwrap_or(0);
        let passed_ms = self.before.as_ref().map_or(0, |it| now.time_ms.saturating_sub(it.time_ms));
        let rate = |now: u64, before: Option<u64>| match before {
            Some(before) if passed_ms > 0 => {
                (now.saturating_sub(before) as f64 * 1000.0 / passed_ms as f64).round() as u64
            }
            _ => 0,
        };
        let earlier = |name: &str| {
            let before = self.before.as_ref()?;
            let same = before.arenas.iter().find(|it| it.name == arena.name)?;
            same.metrics.get(name).copied()
        };
        let of_arena = |name: &str| rate(value(name), earlier(name));
        let sum = |snapshot: &Snapshot, name: &str| {
            snapshot.parts.iter().map(|part| part.sum(name)).sum::<u64>()
        };
        let of_parts =
            |name: &str| rate(sum(now, name), self.before.as_ref().map(|it| sum(it, name)));
        let reserved = (arena.slots * arena.slot_bytes).max(1) as u64;
        let most = value("uring_arena_live_max_bytes");
        vec![
            format!(
                " {} x {}, most in use {} ({} %)",
                arena.slots,
                bytes(arena.slot_bytes as u64),
                bytes(most),
                100 * most / reserved
            ),
            format!(
                " claims {}/s   refused {}/s   spilled {}/s",
                of_arena("uring_arena_claims_total"),
                of_arena("uring_arena_refusals_total"),
                of_arena("uring_arena_spills_total")
            ),
            format!(
                " waiters {} now, {} at most   waits {}/s   longest wait {}",
                value("uring_arena_waiters"),
                value("uring_arena_waiters_max"),
                of_arena("uring_arena_waits_total"),
                time(value("uring_arena_longest_wait_seconds") / 1_000_000)
            ),
            format!(
                " starved: {}/s   sockets {}   rings empty {}   streams {}   copied {}/s",
                of_parts("uring_arena_driver_starved_total")
                    + of_parts("uring_arena_pool_starvations_total"),
                sum(now, "uring_arena_driver_sockets_parked"),
                sum(now, "uring_arena_driver_rings_empty"),
                sum(now, "uring_arena_pool_streams_starved"),
                of_parts("uring_arena_ring_copied_total"),
            ),
            String::new(),
        ]
    }

    fn draw_map(&self, frame: &mut Frame<'_>, body: Rect, arena: &ArenaView) {
        frame.render_widget(self.legend(&arena.states), Rect { height: 1, ..body });
        let sizes: Vec<Line<'_>> = sizes_of_blocks(arena).into_iter().map(Line::raw).collect();
        let sizes_lines = sizes.len().min(body.height as usize / 2) as u16;
        let columns = (body.width as usize).saturating_sub(2) / 8 * 8;
        let map = Rect {
            x: body.x + 1,
            y: body.y + 2,
            width: columns as u16,
            height: body.height.saturating_sub(4 + sizes_lines),
        };
        let room = columns * map.height as usize;
        let (cells, merged) = merged(&arena.map, room);
        let slots = merged * arena.slots_per_cell;
        let what = if arena.blocks.is_empty() { "slot" } else { "smallest block" };
        let plural = if slots == 1 { "" } else { "s" };
        let text = format!(" each letter is {slots} {what}{plural}, lowest index first");
        frame.render_widget(
            Line::styled(text, self.dim()),
            Rect { y: body.y + 1, height: 1, ..body },
        );
        for (number, letter) in cells.into_iter().enumerate() {
            let (x, y) = (number % columns.max(1), number / columns.max(1));
            let state = StatesView::LETTERS.iter().position(|&of| of == letter).unwrap_or(0);
            let (x, y) = (map.x + x as u16, map.y + y as u16);
            frame.buffer_mut().set_string(x, y, letter.to_string(), self.color_of(state));
        }
        let y = map.bottom() + 1;
        let rest = Rect { y, height: body.bottom().saturating_sub(y), ..body };
        frame.render_widget(Paragraph::new(sizes), rest);
    }

    fn draw_holders(&self, frame: &mut Frame<'_>, body: Rect, arena: &ArenaView) {
        let Some(holders) = &arena.holders else {
            let text = " not known: build the arena with `track_holders`";
            return frame.render_widget(text, body);
        };
        let mut lines = vec![self.row_of_names("claims", "place")];
        // The half of the page is for places, what they leave for the oldest.
        let places = (body.height as usize).saturating_sub(6) / 2;
        lines.extend(holders.places.iter().take(places).map(|group| {
            let GroupView { claims, bytes, used_bytes, oldest_ms, state, .. } = group;
            let place = label_or_place(group.label.as_deref(), None, &group.place);
            Line::raw(row(*claims as u64, *bytes, Some(*used_bytes), *oldest_ms, state, &place))
        }));
        lines.push(Line::raw(""));
        lines.push(self.row_of_names("slot", "oldest claims"));
        let skipped = self.skipped.min(holders.oldest.len().saturating_sub(1));
        lines.extend(holders.oldest.iter().skip(skipped).map(|holder| {
            let HolderView { slot, bytes, used_bytes, age_ms, state, .. } = holder;
            let place = label_or_place(holder.label.as_deref(), holder.connection, &holder.place);
            Line::raw(row(u64::from(*slot), *bytes, *used_bytes, *age_ms, state, &place))
        }));
        let height = body.height.saturating_sub(1);
        frame.render_widget(Paragraph::new(lines), Rect { height, ..body });
        let text = format!(" {} recorded, {} not recorded", holders.tracked, holders.untracked);
        let last = Rect { y: body.bottom() - 1, height: 1, ..body };
        frame.render_widget(Line::styled(text, self.dim()), last);
    }

    fn row_of_names(&self, first: &str, last: &str) -> Line<'static> {
        let [bytes, used, age, state] = ["bytes", "used", "age", "state"];
        let text = format!(" {first:>7} {bytes:>9} {used:>9} {age:>8} {state:<11} {last}");
        Line::styled(text, Style::new().add_modifier(Modifier::UNDERLINED))
    }

    fn draw_sockets(&self, frame: &mut Frame<'_>, body: Rect, now: &Snapshot) {
        let [connection, driver, state, group, sends, claims, held, oldest] =
            ["connection", "driver", "state", "group", "sends", "claims", "held", "oldest"];
        let text = format!(
            " {connection:>10} {driver:<10} {state:<10} {group:>5} {sends:>5} {claims:>6} \
             {held:>9} {oldest:>8}"
        );
        let style = Style::new().add_modifier(Modifier::UNDERLINED);
        let mut lines = vec![Line::styled(text, style)];
        let groups = || {
            let holders = now.arenas.iter().filter_map(|arena| arena.holders.as_ref());
            holders.flat_map(|holders| &holders.connections)
        };
        let mut rows: Vec<(usize, String)> = Vec::new();
        for socket in &now.sockets {
            let of = |group: &&GroupView| group.connection == Some(socket.connection);
            let claims: usize = groups().filter(of).map(|group| group.claims).sum();
            let held: usize = groups().filter(of).map(|group| group.bytes).sum();
            let oldest = groups().filter(of).map(|group| group.oldest_ms).max().unwrap_or(0);
            let group = socket.group.map_or("-".into(), |group| group.to_string());
            let (held_text, oldest) = (bytes(held as u64), time(oldest));
            let (driver, state) = (cut(&socket.driver, 10), cut(&socket.state, 10));
            rows.push((
                held,
                format!(
                    " {:>10} {driver:<10} {state:<10} {group:>5} {:>5} {claims:>6} \
                     {held_text:>9} {oldest:>8}",
                    socket.connection, socket.sends
                ),
            ));
        }
        // Those that hold most come first.
        rows.sort_by_key(|(held, _)| std::cmp::Reverse(*held));
        let skipped = self.skipped.min(rows.len().saturating_sub(1));
        lines.extend(rows.into_iter().skip(skipped).map(|(_, row)| Line::raw(row)));
        if now.sockets.is_empty() {
            lines.push(Line::raw(" the snapshot has no driver with sockets"));
        }
        frame.render_widget(Paragraph::new(lines), body);
    }
}

/// Returns the state of each cell of a column, from below: what has an owner first, free on top.
///
/// Each state that some slot has gets a cell, as long as there are as many.
fn stacked(states: &StatesView, height: u16) -> Vec<usize> {
    let counts = states.counts();
    let total: usize = counts.iter().sum();
    let height = height as usize;
    let mut cells = Vec::with_capacity(height);
    let mut below = 0;
    for state in (1..counts.len()).rev() {
        below += counts[state];
        let end = (below * height).div_ceil(total.max(1));
        let at_least = cells.len() + usize::from(counts[state] > 0);
        while cells.len() < end.max(at_least).min(height) && counts[state] > 0 {
            cells.push(state);
        }
    }
    cells.resize(height, 0);
    cells
}

/// Merges the cells of a map into `room` at most. Returns the letters, and the cells of each.
fn merged(map: &str, room: usize) -> (Vec<char>, usize) {
    let letters: Vec<char> = map.chars().collect();
    let size = letters.len().div_ceil(room.max(1)).max(1);
    let merge = |cells: &[char]| {
        let count = |letter: char| cells.iter().filter(|&&of| of == letter).count();
        if cells.contains(&'Q') {
            return 'Q';
        }
        let owned = StatesView::LETTERS.into_iter().skip(1).filter(|&letter| count(letter) > 0);
        owned.max_by_key(|&letter| count(letter)).unwrap_or('.')
    };
    (letters.chunks(size).map(merge).collect(), size)
}

/// Writes the blocks of a buddy arena by size, three sizes in a line.
fn sizes_of_blocks(arena: &ArenaView) -> Vec<String> {
    let texts: Vec<String> = arena
        .blocks
        .iter()
        .map(|of| {
            format!(" {:>8}: {:>5} used {:>4} free", bytes(of.bytes as u64), of.claimed, of.free)
        })
        .collect();
    texts.chunks(2).map(|texts| texts.join("   ")).collect()
}

/// Writes a row of a list of holders: 79 columns at most.
fn row(
    first: u64,
    held: usize,
    used: Option<usize>,
    age_ms: u64,
    state: &str,
    place: &str,
) -> String {
    let used = used.map_or("-".into(), |used| bytes(used as u64));
    let (held, age, place) = (bytes(held as u64), time(age_ms), end_of(place, 29));
    format!(" {first:>7} {held:>9} {used:>9} {age:>8} {state:<11} {place}")
}

fn label_or_place(label: Option<&str>, connection: Option<u64>, place: &str) -> String {
    match (label, connection) {
        (Some(label), _) => format!("\"{label}\""),
        (None, Some(connection)) => format!("connection {connection}"),
        (None, None) => place.to_owned(),
    }
}

/// Returns the first characters of a text.
fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

/// Returns the last characters of a text, without the column of a place.
fn end_of(place: &str, columns: usize) -> String {
    let mut parts: Vec<&str> = place.split(':').collect();
    if parts.len() == 3 {
        parts.pop();
    }
    let text = parts.join(":");
    let skipped = text.chars().count().saturating_sub(columns);
    text.chars().skip(skipped).collect()
}

/// Writes a number of bytes in nine columns at most.
fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_240_000 => format!("{} KiB", count >> 10),
        10_240_000..10_485_760_000 => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}

/// Writes a time in eight columns at most.
fn time(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..100_000 => format!("{:.1} s", ms as f64 / 1000.0),
        100_000..6_000_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use uring_arena::{FixedArena, TrackHolders};

    use super::*;

    fn snapshot(arena: &FixedArena) -> Snapshot {
        Snapshot::new().arena("frames", arena).part("frames", arena)
    }

    /// Draws a page. Returns its lines.
    fn draw(screen: &mut Screen, columns: u16, lines: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
        (0..lines).map(line).collect()
    }

    #[test]
    fn a_page_has_its_numbers_and_fits() {
        let builder = FixedArena::with_sizes(100, 4096).track_holders(TrackHolders::All);
        let arena = builder.build().unwrap();
        let mut screen = Screen::new(false);
        assert!(draw(&mut screen, 80, 24)[0].contains("waiting for a snapshot"));
        screen.add(snapshot(&arena));
        let mut held: Vec<_> = (0..50).map(|_| arena.allocate().unwrap()).collect();
        held[0].put_slice(b"bytes");
        screen.add(snapshot(&arena));
        let lines = draw(&mut screen, 80, 24);
        let text = lines.join("\n");
        assert!(text.contains(". 50 free h 50 held"), "{text}");
        assert!(text.contains("most in use 200 KiB (50 %)"), "{text}");
        assert!(text.contains("screen.rs:"), "{text}");
        // The newest sample stands at the right: half of it is held.
        let column: Vec<char> =
            lines[2..12].iter().map(|line| line.chars().nth(78).unwrap()).collect();
        assert_eq!(column.iter().filter(|&&letter| letter == 'h').count(), 5, "{text}");
        screen.choose(Page::Map);
        let lines = draw(&mut screen, 80, 24);
        // The map lies between the line that explains it and the keys.
        let cells =
            |letter| lines[4..20].iter().map(|line| line.matches(letter).count()).sum::<usize>();
        assert_eq!((cells("h"), cells(".")), (50, 50), "{}", lines.join("\n"));
        screen.choose(Page::Holders);
        screen.scroll(3);
        assert!(draw(&mut screen, 80, 24).join("\n").contains("50 recorded"));
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn_on() {
        let arena = FixedArena::new(5000, 64).unwrap();
        let held = arena.allocate().unwrap();
        let mut screen = Screen::new(true);
        screen.add(snapshot(&arena));
        screen.add(snapshot(&arena));
        for page in Page::ALL {
            screen.choose(page);
            screen.scroll(1000);
            for (columns, lines) in [(1, 1), (20, 5), (21, 6), (40, 10), (80, 24), (300, 100)] {
                draw(&mut screen, columns, lines);
            }
        }
        drop(held);
    }

    #[test]
    fn a_column_shows_each_state_that_some_slot_has() {
        let arena = FixedArena::new(1000, 64).unwrap();
        let one = arena.allocate().unwrap();
        let mut states = StatesView::from(arena.slot_states());
        assert_eq!(stacked(&states, 4), [1, 0, 0, 0]);
        (states.free, states.frozen, states.quarantined) = (0, 998, 1);
        assert_eq!(stacked(&states, 4), [5, 4, 4, 4]);
        (states.free, states.frozen) = (998, 0);
        assert_eq!(stacked(&states, 4), [5, 1, 0, 0]);
        assert_eq!(stacked(&StatesView::default(), 2), [0, 0]);
        drop(one);
    }

    #[test]
    fn cells_are_merged_and_a_lost_slot_stays_seen() {
        assert_eq!(merged("..hfff.Q", 8), ("..hfff.Q".chars().collect(), 1));
        assert_eq!(merged("..hfff.Q", 4), (vec!['.', 'f', 'f', 'Q'], 2));
        assert_eq!(merged("", 4), (vec![], 1));
    }

    #[test]
    fn numbers_have_few_columns() {
        let longest = [9_999, 10_000, 10_239_999, 10_485_759_999, u64::MAX].map(bytes);
        assert!(longest[..4].iter().all(|text| text.chars().count() <= 9), "{longest:?}");
        assert!([999, 99_999, 5_999_999].map(time).iter().all(|text| text.chars().count() <= 8));
    }
}
