/** Finders of personal and payment data. Each takes time in proportion to the text, whatever stands in it. */

/** Where something was found, in characters. */
export interface Span {
  readonly start: number
  readonly end: number
}

export type Finder = (text: string) => Span[]

const localMax = 64
const domainMax = 255
const isAlphanumeric = /[A-Za-z0-9]/
const isDigit = /\d/

/** E-mail addresses of ASCII characters. */
export function findEmails(text: string): Span[] {
  const found: Span[] = []
  for (let at = text.indexOf('@'); at >= 0; at = text.indexOf('@', at + 1)) {
    if (!isAlphanumeric.test(text.charAt(at + 1))) continue
    const last = found.at(-1)
    let start = at
    while (start > Math.max(last?.end ?? 0, at - localMax) && /[A-Za-z0-9._%+-]/.test(text.charAt(start - 1)))
      start -= 1
    while (start < at && text[start] === '.') start += 1
    let end = at + 1
    while (end < Math.min(text.length, at + 1 + domainMax) && /[A-Za-z0-9.-]/.test(text.charAt(end))) end += 1
    while (end > at && /[.-]/.test(text.charAt(end - 1))) end -= 1
    const domain = text.slice(at + 1, end)
    if (start < at && /^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}$/.test(domain)) found.push({ start, end })
  }
  return found
}

/** Characters of an IBAN by country: https://www.swift.com/standards/data-standards/iban-international-bank-account-number */
const ibanLengths: Readonly<Record<string, number>> = Object.fromEntries(
  (
    'AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ' +
    'ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 ' +
    'LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 ' +
    'PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30'
  )
    .split(' ')
    .map((entry) => [entry.slice(0, 2), Number(entry.slice(2))]),
)

/** International bank account numbers with a right checksum, written together or in groups. */
export function findIbans(text: string): Span[] {
  const found: Span[] = []
  for (const match of text.matchAll(/(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}/g)) {
    const { index: start } = match
    const length = ibanLengths[match[0].slice(0, 2).toUpperCase()]
    if (length === undefined || start < (found.at(-1)?.end ?? 0)) continue
    const { characters, ends } = collect(text, start, length, isAlphanumeric)
    const end = ends[length - 1]
    if (end !== undefined && !isAlphanumeric.test(text.charAt(end)) && isIban(characters)) found.push({ start, end })
  }
  return found
}

/** Whether the checksum of an IBAN without spaces is right (ISO 7064, mod 97-10). */
export function isIban(iban: string): boolean {
  let rest = 0
  for (const char of (iban.slice(4) + iban.slice(0, 4)).toUpperCase()) {
    const value = Number.parseInt(char, 36)
    rest = (rest * (value > 9 ? 100 : 10) + value) % 97
  }
  return rest === 1
}

const cardMinDigits = 13
const cardMaxDigits = 19

/** Payment card numbers with a right check digit, written together or in groups. */
export function findCards(text: string): Span[] {
  const found: Span[] = []
  // The numbers of the card networks begin with 2 to 6.
  for (const { index: start } of text.matchAll(/(?<![A-Za-z0-9.])[2-6]/g)) {
    if (start < (found.at(-1)?.end ?? 0)) continue
    const { characters, ends } = collect(text, start, cardMaxDigits, isDigit)
    // The longest that is right: what stands in the next group may be another number.
    for (let digits = characters.length; digits >= cardMinDigits; digits -= 1) {
      const end = ends[digits - 1] ?? start
      if (isAlphanumeric.test(text.charAt(end)) || !isLuhn(characters.slice(0, digits))) continue
      found.push({ start, end })
      break
    }
  }
  return found
}

/** Whether the last digit is the check digit of the others (ISO/IEC 7812-1, Luhn). */
export function isLuhn(digits: string): boolean {
  let sum = 0
  for (let place = 0; place < digits.length; place += 1) {
    const digit = Number(digits[digits.length - 1 - place])
    const doubled = digit * 2
    sum += place % 2 === 0 ? digit : doubled > 9 ? doubled - 9 : doubled
  }
  return sum % 10 === 0
}

/** The next `count` characters of a class, with single spaces or dashes between them, and where each of them ends. */
function collect(text: string, start: number, count: number, wanted: RegExp): { characters: string; ends: number[] } {
  let characters = ''
  const ends: number[] = []
  let end = start
  for (let at = start; at < text.length && ends.length < count; at += 1) {
    const char = text.charAt(at)
    if (wanted.test(char)) {
      characters += char
      end = at + 1
      ends.push(end)
    } else if ((char !== ' ' && char !== '-') || at > end) break
  }
  return { characters, ends }
}
