let textSecond = 0
let text = ''

/** This moment as the `date` header of an answer has it (RFC 9110, section 5.6.7): one text, made once a second. */
export function httpDate(): string {
  const second = Math.floor(Date.now() / 1000)
  if (second !== textSecond) {
    textSecond = second
    text = new Date(second * 1000).toUTCString()
  }
  return text
}
