/** What a suite is asked for: a peer's figures beside ours, and what takes minutes. */
export interface BenchOptions {
  readonly peer: boolean;
  readonly long: boolean;
}

/** One measured figure, beside its goal and, where a peer ran or is published, the peer's. Lower is better. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: "ms" | "µs" | "MB" | "KiB";
  readonly goal?: number;
  readonly peer?: number;
}

/** What a table's columns are called, in the form of its lines. */
export const HEADING = line("", "measured", "goal", "peer");

/** A figure as one line of a table, with the ratio to the peer: above 1 we need less. */
export function formatFigure(figure: Figure): string {
  const number = (value: number) =>
    `${value < 10 ? value.toFixed(2) : value.toFixed(value < 100 ? 1 : 0)} ${figure.unit}`;
  const goal = figure.goal === undefined ? "" : `${number(figure.goal)}${figure.value <= figure.goal ? "" : " MISSED"}`;
  const peer = figure.peer === undefined ? "" : `${number(figure.peer)} (×${(figure.peer / figure.value).toFixed(1)})`;
  return line(figure.name, number(figure.value), goal, peer);
}

function line(name: string, measured: string, goal: string, peer: string): string {
  return `${name.padEnd(52)} ${measured.padStart(12)}  ${goal.padEnd(17)} ${peer}`.trimEnd();
}

/** Our figures, each with the peer's of the same name. */
export function besidePeer(ours: readonly Figure[], peers: readonly Figure[]): Figure[] {
  const values = new Map(peers.map(({ name, value }) => [name, value]));
  return ours.map((figure) => {
    const peer = values.get(figure.name);
    return peer === undefined ? figure : { ...figure, peer };
  });
}
