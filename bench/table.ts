/** What a part found out, as it is printed. */
export interface Table {
  readonly title: string
  readonly columns: readonly string[]
  /** Texts stand left, numbers right; `-` for what does not exist. */
  readonly rows: readonly (readonly string[])[]
}

/** The table in Markdown. */
export function printTable({ title, columns, rows }: Table): string {
  const isNumber = (index: number): boolean => rows.every((row) => /^(-|[-+<≥≤]?\d[\d.]*( %)?)$/.test(row[index] ?? ''))
  const rule = columns.map((_, index) => (isNumber(index) ? '---:' : '---'))
  const lines = [columns, ...rows].map((cells) => `| ${cells.join(' | ')} |`)
  lines.splice(1, 0, `|${rule.join('|')}|`)
  return `### ${title}\n\n${lines.join('\n')}\n`
}

/** A number with so many digits after its point, `-` for NaN. */
export function figure(value: number, digits = 0): string {
  return Number.isNaN(value) ? '-' : value.toFixed(digits)
}

/** A share in percent, `-` for NaN. */
export function percent(share: number): string {
  return Number.isNaN(share) ? '-' : `${Math.round(share * 100)} %`
}
