// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0
//
// Draws the output of demo.sh, which it reads from standard input, as an animated SVG on standard output, for
// record-demo.sh.
//
// The whole demo is too long and too wide for a phone, so the picture shows the commands below, each on a page of its
// own under the first sentence of the paragraph that introduces it. Every line is the demo's, and an ellipsis stands
// where one is cut. The time that the demo waits is not shown: a page stays as long as it takes to read.

'use strict';

const { readFileSync } = require('node:fs');

// The beginnings of the commands to show, each of one line. One that is not in the demo any more is an error.
const commands = [
  'vault write apic/config/us-south ',
  'vault read apic/config/us-south',
  'vault read apic/token/us-south',
  'vault read -field=token apic/token/us-south |',
  'curl -fsS "$SIM/v1/me"',
  'vault write -f apic/config/us-south/rotate',
  'grep -c -F -f secrets ',
];
// The page for those who asked their system for less motion, and for programs that do not animate.
const still = 'vault read apic/token/us-south';

const columns = 58;
const rows = 16;
const seconds = 32;
// For the last page, in seconds before all times are scaled to the duration above.
const pauseAtEnd = 2;

// In pixels. A column of the monospaced fonts below is 0.6 of their size wide.
const fontSize = 20;
const lineHeight = 27;
const margin = 22;
const width = Math.ceil(columns * fontSize * 0.61) + 2 * margin;
const height = rows * lineHeight + 2 * margin;

const ellipsis = '…';
const firstSentence = /^.*?[.?](?= |$)/;

// Keys and JWTs are longer than any other word. Only the beginning of one is shown.
const longWord = /[\w.-]{40,}/g;

// steps reads the demo's output, in which a paragraph introduces commands, and a response follows each. Commands and
// responses are indented by four columns.
function steps(output) {
  const found = [];
  let paragraph = '';
  let inParagraph = false;
  let command;
  for (const line of output.split('\n')) {
    if (line.startsWith('    $ ')) {
      command = { paragraph, text: line.slice(6), response: [] };
      found.push(command);
      inParagraph = false;
    } else if (line.startsWith('    ') || line === '') {
      command?.response.push(line.slice(4));
      inParagraph = false;
    } else {
      paragraph = inParagraph ? `${paragraph} ${line}` : line;
      inParagraph = true;
      command = undefined;
    }
  }
  return found;
}

// wrap breaks a text between words.
function wrap(text, indent = '') {
  const lines = [];
  for (const word of text.split(' ')) {
    const last = lines.length - 1;
    if (last >= 0 && lines[last].length + 1 + word.length <= columns) lines[last] += ` ${word}`;
    else lines.push(last >= 0 ? indent + word : word);
  }
  return lines;
}

function cut(line) {
  const short = line.replace(longWord, (word) => word.slice(0, 8) + ellipsis);
  return short.length > columns ? short.slice(0, columns - 1) + ellipsis : short;
}

function fit(lines, count) {
  return lines.length > count ? [...lines.slice(0, count - 1), ellipsis] : lines;
}

// reading returns for how many seconds lines are shown before the next ones come.
function reading(lines) {
  return 1.5 + Math.min(lines.join('').length / 60, 2.2);
}

function page(command) {
  const introduction = wrap(command.paragraph.match(firstSentence)?.[0] ?? command.paragraph);
  const text = wrap(`$ ${command.text}`, '    ').map(cut);
  const above = [...introduction, '', ...text, ''];
  const response = fit(command.response.join('\n').trimEnd().split('\n').map(cut), rows - above.length);
  return { introduction, text, response, above, still: command.text.startsWith(still) };
}

const escaped = (line) => line.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

// draw returns lines as SVG text, the first of them on this row.
function draw(lines, row, style) {
  return lines
    .map((line, i) => {
      const y = margin + (row + i + 0.75) * lineHeight;
      return `<text x="${margin}" y="${y}" class="${style}" xml:space="preserve">${escaped(line)}</text>`;
    })
    .join('\n');
}

// group returns a part of the picture that is shown between two of its seconds.
function group(name, drawn, from, to, isStill) {
  const percent = (time) => `${((100 * time) / seconds).toFixed(2)}%`;
  const before = from > 0 ? '0%{opacity:0}' : '';
  return `<style>
@keyframes ${name}{${before}${percent(from)}{opacity:1}${percent(to)},100%{opacity:0}}
#${name}{animation-name:${name}}
</style>
<g id="${name}"${isStill ? ' class="still"' : ''}>
${drawn}
</g>`;
}

// animate returns the pages one after the other, each first without the response and then with it.
function animate(pages) {
  const wanted = pages.reduce((sum, each) => sum + reading(each.above) + reading(each.response), pauseAtEnd);
  const scale = seconds / wanted;
  const groups = [];
  let time = 0;
  pages.forEach((each, i) => {
    const answered = time + reading(each.above) * scale;
    const end = i + 1 < pages.length ? answered + reading(each.response) * scale : seconds;
    const introduction = draw(each.introduction, 0, 'introduction');
    const command = draw(each.text, each.introduction.length + 1, 'command');
    groups.push(group(`c${i}`, `${introduction}\n${command}`, time, end, each.still));
    groups.push(group(`r${i}`, draw(each.response, each.above.length, 'response'), answered, end, each.still));
    time = end;
  });
  return groups.join('\n');
}

function main() {
  const demo = steps(readFileSync(0, 'utf8'));
  const pages = commands.map((beginning) => {
    const command = demo.find((each) => each.text.startsWith(beginning));
    if (command === undefined) throw new Error(`the demo does not run: ${beginning}`);
    return page(command);
  });
  process.stdout.write(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" \
viewBox="0 0 ${width} ${height}" role="img" aria-label="Recording of make demo">
<style>
text{fill:#d0d7de}
text{font:${fontSize}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace}
.introduction{fill:#79c0ff}
.command{fill:#fff;font-weight:bold}
g{opacity:0;animation:${seconds}s steps(1,end) infinite}
.still{opacity:1}
@media (prefers-reduced-motion:reduce){g{animation:none}}
</style>
<rect width="100%" height="100%" rx="10" fill="#161b22"/>
${animate(pages)}
</svg>
`);
}

main();
