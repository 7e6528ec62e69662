"""Countries, and some regions that govern themselves, with their capitals, by the English names of both.

Countries whose capital has their own name, or is disputed or shared, are left out.
"""

from __future__ import annotations

from types import MappingProxyType

_LIST = """
Abkhazia: Sukhumi, Afghanistan: Kabul, Albania: Tirana, Angola: Luanda, Argentina: Buenos Aires, Armenia: Yerevan,
Australia: Canberra, Austria: Vienna, Azerbaijan: Baku, Bahamas: Nassau, Bahrain: Manama, Bangladesh: Dhaka,
Barbados: Bridgetown, Belarus: Minsk, Belgium: Brussels, Belize: Belmopan, Bermuda: Hamilton, Bhutan: Thimphu,
Botswana: Gaborone, Bulgaria: Sofia, Burma: Naypyidaw, Burundi: Gitega, Cambodia: Phnom Penh, Canada: Ottawa,
Chad: N'Djamena, Chile: Santiago, China: Beijing, Colombia: Bogota, Comoros: Moroni, Croatia: Zagreb, Cuba: Havana,
Cyprus: Nicosia, Denmark: Copenhagen, Dominica: Roseau, Ecuador: Quito, Egypt: Cairo, England: London,
Eritrea: Asmara, Estonia: Tallinn, Ethiopia: Addis Ababa, Fiji: Suva, Finland: Helsinki, France: Paris,
Gabon: Libreville, Gambia: Banjul, Georgia: Tbilisi, Germany: Berlin, Ghana: Accra, Greece: Athens, Greenland: Nuuk,
Grenada: St. George's, Guinea: Conakry, Guyana: Georgetown, Haiti: Port-au-Prince, Honduras: Tegucigalpa,
Hungary: Budapest, Iceland: Reykjavik, India: New Delhi, Indonesia: Jakarta, Iran: Tehran, Iraq: Baghdad,
Ireland: Dublin, Italy: Rome, Jamaica: Kingston, Japan: Tokyo, Jordan: Amman, Kazakhstan: Astana, Kenya: Nairobi,
Kyrgyzstan: Bishkek, Laos: Vientiane, Latvia: Riga, Lebanon: Beirut, Lesotho: Maseru, Liberia: Monrovia,
Libya: Tripoli, Liechtenstein: Vaduz, Lithuania: Vilnius, Madagascar: Antananarivo, Malawi: Lilongwe,
Malaysia: Kuala Lumpur, Maldives: Male, Mali: Bamako, Malta: Valletta, Mauritania: Nouakchott, Mauritius: Port Louis,
Moldova: Chisinau, Mongolia: Ulaanbaatar, Montenegro: Podgorica, Morocco: Rabat, Mozambique: Maputo,
Namibia: Windhoek, Nepal: Kathmandu, Netherlands: Amsterdam, New Zealand: Wellington, Nicaragua: Managua,
Niger: Niamey, Nigeria: Abuja, North Korea: Pyongyang, Northern Ireland: Belfast, Norway: Oslo, Oman: Muscat,
Pakistan: Islamabad, Paraguay: Asuncion, Peru: Lima, Philippines: Manila, Poland: Warsaw, Portugal: Lisbon,
Qatar: Doha, Romania: Bucharest, Russia: Moscow, Rwanda: Kigali, Samoa: Apia, Saudi Arabia: Riyadh,
Scotland: Edinburgh, Senegal: Dakar, Serbia: Belgrade, Seychelles: Victoria, Sierra Leone: Freetown,
Slovakia: Bratislava, Slovenia: Ljubljana, Somalia: Mogadishu, South Korea: Seoul, Spain: Madrid, Sudan: Khartoum,
Suriname: Paramaribo, Sweden: Stockholm, Switzerland: Bern, Syria: Damascus, Taiwan: Taipei, Tajikistan: Dushanbe,
Tanzania: Dodoma, Thailand: Bangkok, Togo: Lome, Tonga: Nuku'alofa, Tunisia: Tunis, Turkey: Ankara,
Turkmenistan: Ashgabat, Uganda: Kampala, Ukraine: Kyiv, United States: Washington, Uruguay: Montevideo,
Uzbekistan: Tashkent, Vanuatu: Port Vila, Venezuela: Caracas, Vietnam: Hanoi, Wales: Cardiff, Yemen: Sanaa,
Zambia: Lusaka, Zimbabwe: Harare
"""

CAPITALS = MappingProxyType(dict(entry.strip().split(": ") for entry in _LIST.split(",")))
"""The capital of each country."""
