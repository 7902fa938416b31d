/** Columns as Docker prints them (Go's tabwriter with minimum width 10 and padding 3). Pure. */

const WIDTH_MIN = 10;
const PADDING = 3;

/** Lines up `rows`; the last column is not padded. Every line ends in a newline. */
export function renderTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.slice(0, -1).forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? WIDTH_MIN, cell.length + PADDING);
    });
  }
  return rows
    .map((row) => row.map((cell, column) => (column < row.length - 1 ? cell.padEnd(widths[column] ?? 0) : cell)))
    .map((cells) => `${cells.join("")}\n`)
    .join("");
}

/** `text` cut to `length` characters with an ellipsis, as Docker's ERROR column. */
export function ellipsis(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}
