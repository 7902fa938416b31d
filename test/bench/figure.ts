/** One measured figure, beside its goal and, where a peer ran or is published, the peer's. Lower is better. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: "ms" | "MB" | "KiB";
  readonly goal?: number;
  readonly peer?: number;
}

/** A figure as one line of a table, with the ratio to the peer. */
export function formatFigure(figure: Figure): string {
  const number = (value: number) =>
    `${value < 10 ? value.toFixed(2) : value.toFixed(value < 100 ? 1 : 0)} ${figure.unit}`;
  const goal =
    figure.goal === undefined ? "" : `goal ${number(figure.goal)}${figure.value <= figure.goal ? "" : " MISSED"}`;
  const peer =
    figure.peer === undefined ? "" : `peer ${number(figure.peer)} (×${(figure.peer / figure.value).toFixed(1)})`;
  return `${figure.name.padEnd(52)} ${number(figure.value).padStart(12)}  ${goal.padEnd(22)} ${peer}`.trimEnd();
}
