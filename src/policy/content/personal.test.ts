import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Finder, findCards, findEmails, findIbans, isIban, isLuhn } from './personal.ts'
import { findSecrets } from './secrets.ts'

function found(find: Finder, text: string): string[] {
  return find(text).map(({ start, end }) => text.slice(start, end))
}

const digits = (count: number) =>
  fc.array(fc.integer({ min: 0, max: 9 }), { minLength: count, maxLength: count }).map((each) => each.join(''))

/** A number with the check digit that makes it right. */
function completed(body: string): string {
  const digit = [...'0123456789'].find((last) => isLuhn(body + last))
  return body + digit
}

/** An IBAN of Germany with the check digits that make it right. */
function iban(account: string): string {
  const numbers = Array.from({ length: 97 }, (_, index) => `DE${String(index + 2).padStart(2, '0')}${account}`)
  return numbers.find(isIban) ?? ''
}

const cardNumber = fc.tuple(fc.constantFrom('4', '51', '37', '6011', '2221'), digits(14)).map(([prefix, rest]) => {
  return completed((prefix + rest).slice(0, prefix === '37' ? 14 : 15))
})

test('finds every card number whose check digit is right, and none with one wrong digit', () => {
  fc.assert(
    fc.property(cardNumber, fc.nat(14), fc.integer({ min: 1, max: 9 }), (card, place, change) => {
      const grouped = card.replace(/(\d{4})(?=\d)/g, '$1 ')
      expect(found(findCards, `pay with ${card}, please`)).toEqual([card])
      expect(found(findCards, `(${grouped})`)).toEqual([grouped])
      const at = place % card.length
      const wrong = card.slice(0, at) + ((Number(card[at]) + change) % 10) + card.slice(at + 1)
      expect(found(findCards, wrong)).toEqual([])
    }),
  )
})

test('finds every IBAN whose checksum is right, and none with two characters exchanged', () => {
  fc.assert(
    fc.property(digits(18), fc.integer({ min: 4, max: 20 }), (account, at) => {
      const number = iban(account)
      const grouped = number.replace(/(.{4})(?=.)/g, '$1 ')
      expect(found(findIbans, `to ${number}.`)).toEqual([number])
      expect(found(findIbans, `to ${grouped} AND MORE`)).toEqual([grouped])
      expect(found(findIbans, number.toLowerCase())).toEqual([number.toLowerCase()])
      const exchanged = number.slice(0, at) + number[at + 1] + number[at] + number.slice(at + 2)
      expect(found(findIbans, exchanged)).toEqual(exchanged === number ? [number] : [])
    }),
  )
})

test.each([
  ['GB82 WEST 1234 5698 7654 32', ['GB82 WEST 1234 5698 7654 32']],
  ['FR1420041010050500013M02606', ['FR1420041010050500013M02606']],
  ['XX82WEST12345698765432', []],
  ['aGB82WEST12345698765432', []],
  ['GB82WEST123456987654321', []],
])('the IBANs of "%s" are %j', (text, expected) => {
  expect(found(findIbans, text)).toEqual(expected)
})

test.each([
  ['write to a.b+c@mail.example.org.', ['a.b+c@mail.example.org']],
  ['<x@y.de>,z@y.de', ['x@y.de', 'z@y.de']],
  ['@handle, user@localhost, a@b@c, 5 @ 3.50', []],
  ['a@b.c@d.ef', ['b.c@d.ef']],
])('the addresses of "%s" are %j', (text, expected) => {
  expect(found(findEmails, text)).toEqual(expected)
})

test('a number beside other numbers is found, within a longer one it is not', () => {
  const card = completed('411111111111111')
  expect(found(findCards, `${card} 12/27 123`)).toEqual([card])
  expect(found(findCards, `${card}99999999`)).toEqual([])
  expect(found(findCards, `0.${card}`)).toEqual([])
})

test('finds keys of well-known forms and private keys', () => {
  const word = (length: number): string => 'aB3'.repeat(length).slice(0, length)
  const keys = [`AKIA${'A1'.repeat(8)}`, `ghp_${word(36)}`, `sk-${word(48)}`, `tg_live_${word(40)}`, `AIza${word(35)}`]
  for (const key of keys) {
    expect(found(findSecrets, `key=${key};`)).toEqual([key])
    expect(found(findSecrets, `a${key}`)).toEqual([])
  }
  const label = 'PRIVATE KEY'
  const pem = `-----BEGIN RSA ${label}-----\n${word(64)}\n-----END RSA ${label}-----`
  expect(found(findSecrets, `before ${pem} after`)).toEqual([pem])
  const cut = `-----BEGIN ${label}-----\n${word(64)}`
  expect(found(findSecrets, `before ${cut}`)).toEqual([cut])
})

test.each([
  ['digits', '4'.repeat(1_000_000)],
  ['digits in groups', '4 '.repeat(500_000)],
  ['at signs', '@'.repeat(1_000_000)],
  ['addresses that never end', 'a@a.'.repeat(250_000)],
  ['account numbers', 'DE44'.repeat(250_000)],
  ['beginnings of tokens', 'eyJ'.repeat(333_333)],
  ['beginnings of keys', 'sk-sk_live_'.repeat(90_000)],
  ['beginnings of private keys', `-----BEGIN ${'PRIVATE KEY'}-----`.repeat(30_000)],
])('goes through a million characters of %s', (_, text) => {
  for (const find of [findEmails, findIbans, findCards, findSecrets]) expect(Array.isArray(find(text))).toBe(true)
})
