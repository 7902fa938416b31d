/** What `swarmctl check` says: its words for one thing, and how they are printed. Pure. */

/** How grave it is. INFO asks for nothing; only FAIL keeps a host out. */
export type Level = "OK" | "INFO" | "WARN" | "FAIL";

/** One line of the answer. */
export interface Finding {
  /** What was looked at: "kernel", "port 2377". */
  readonly name: string;
  readonly level: Level;
  readonly message: string;
  /** What to do, as a command where one does it. */
  readonly mend?: string;
}

const LEVEL_WIDTH = 6;

/** Lines for people; the last one sums up. */
export function printFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length)) + 2;
  const lines = findings.map(({ level, name, message, mend }) => {
    const line = `${level.padEnd(LEVEL_WIDTH)}${name.padEnd(width)}${message}`;
    return mend === undefined ? line : `${line}\n${" ".repeat(LEVEL_WIDTH + width)}mend: ${mend}`;
  });
  return `${lines.join("\n")}\n${summary(findings)}\n`;
}

/** Whether nothing keeps the host out. */
export function isFit(findings: readonly Finding[]): boolean {
  return findings.every(({ level }) => level !== "FAIL");
}

function summary(findings: readonly Finding[]): string {
  const count = (level: Level) => findings.filter((finding) => finding.level === level).length;
  const [failed, warned] = [count("FAIL"), count("WARN")];
  const warnings = warned === 0 ? "" : `, ${warned} ${warned === 1 ? "warning" : "warnings"}`;
  return failed === 0 ? `this host will do${warnings}` : `this host will not do: ${failed} to mend${warnings}`;
}
